"""The client stays light: an agent's environment takes on OpenTelemetry and httpx, nothing else."""

import ast
import os
import subprocess
import sys

HEAVY = ["pydantic", "aiokafka", "faststream", "torch", "transformers", "openai", "starlette", "redis", "numpy"]


def test_importing_the_client_loads_nothing_heavy_and_no_service() -> None:
    program = (
        "import sys, leyden\n"
        "leyden.Runner, leyden.init, leyden.rollout, leyden.emit_reward, leyden.tool, leyden.flush\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "print([name for name in sys.modules if name.startswith('leyden.') and not name.startswith('leyden.client')])\n"
    )
    heavy, ours = run(program).splitlines()
    assert heavy == "[]"
    assert sorted(ast.literal_eval(ours)) == ["leyden.failures", "leyden.ids", "leyden.scalar"]


def test_code_that_only_names_the_client_loads_no_http_client_protobuf_or_sdk() -> None:
    program = (
        "import sys, leyden\n"
        "@leyden.rollout\n"
        "def agent(): leyden.emit_reward(1.0)\n"
        "leyden.Runner, leyden.init, leyden.tool, leyden.flush(), leyden.stats()\n"
        "print([name for name in ('httpx', 'google.protobuf', 'opentelemetry.sdk') if name in sys.modules])\n"
        "leyden.init('http://127.0.0.1:9', 'k')\n"
        "print([name for name in ('httpx', 'google.protobuf', 'opentelemetry.sdk') if name in sys.modules])\n"
    )
    named, connected = map(ast.literal_eval, run(program).splitlines())
    assert named == []
    # All at once and here: a thread that still imports when the agent forks would leave the child waiting for ever.
    assert connected == ["httpx", "google.protobuf", "opentelemetry.sdk"]


def test_importing_leyden_alone_loads_no_client() -> None:
    program = "import sys, leyden; print('leyden.client' in sys.modules)"
    assert run(program).strip() == "False"


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    ).stdout
