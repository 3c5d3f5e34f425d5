"""Claude Code and Codex as `leyden run` starts them: the real programs from npm, on a scripted engine."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bundled import NODE
from leyden.events import RolloutEnded, RolloutStarted
from leyden.stack.ports import free_port
from node_packages import node_packages
from service.gateway.gateway_fakes import API_KEY, Bench, bench
from service.gateway.gateway_scripts import Says, tool_call

pytestmark = pytest.mark.integration
SOURCE = Path(__file__).parents[1] / "coding_agents"
COMMAND = "echo foo > out.txt"


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`node_modules` with both programs."""
    return node_packages(request, tmp_path_factory, SOURCE, timeout_s=400) / "node_modules"


@pytest.fixture
async def gate() -> AsyncIterator[Bench]:
    async with bench(port=free_port()) as made:
        yield made


def native_claude(programs: Path) -> Path:
    """The program of this platform; npm's `claude` only starts it."""
    (program,) = programs.glob("@anthropic-ai/claude-code-*/claude")
    return program


def works(gate: Bench, tool: str, arguments: dict[str, Any]) -> None:
    """Have the engine call a tool once, and then say that it is done."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if any(message["role"] == "tool" for message in body["messages"]):
            return await Says("All done.")(request, body)
        call = tool_call("c1", tool, orjson.dumps(arguments).decode())
        return await Says("Let me see.", [call], finish="tool_calls")(request, body)

    gate.engine.reply = reply


async def leyden_run(gate: Bench, folder: Path, *program: str | Path) -> str:
    """Run a program as one rollout in an empty folder, with a home of its own; its output."""
    folder.joinpath("home").mkdir()
    folder.joinpath("work").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leyden.cli", "run", "--model", "policy", "--gateway", gate.url, "--api-key", API_KEY,
        "--", *program, cwd=folder / "work", env=kept | {"HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(180):
            out, err = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert run.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


def is_one_rollout(gate: Bench, route: str) -> None:
    """Every call is of the one rollout, which succeeded; a later call has what the earlier one said."""
    (started,) = gate.log.of(RolloutStarted)
    (ended,) = gate.log.of(RolloutEnded)
    calls = gate.log.calls
    assert {(call.rollout_id, call.route, call.error) for call in calls} == {(started.rollout_id, route, None)}
    assert (ended.status, set(ended.call_ids)) == ("succeeded", {call.call_id for call in calls})
    answer = next(message for message in gate.engine.bodies[-1]["messages"] if message["role"] == "assistant")
    said = next(call.choices[0].message for call in calls if call.choices[0].message.get("tool_calls"))
    assert answer["content"] == said["content"] == "Let me see."
    assert [call["function"]["name"] for call in answer["tool_calls"]] == [
        call["function"]["name"] for call in said["tool_calls"]
    ]


async def test_claude_code_is_a_rollout(gate: Bench, programs: Path, tmp_path: Path) -> None:
    works(gate, "Bash", {"command": COMMAND, "description": "Writes a file"})
    out = await leyden_run(
        gate, tmp_path, native_claude(programs), "-p", "Write foo to out.txt", "--allowedTools", "Bash"
    )
    assert out.strip().endswith("All done.")
    assert (tmp_path / "work" / "out.txt").read_text() == "foo\n"
    is_one_rollout(gate, "/v1/messages")


async def test_codex_is_a_rollout(gate: Bench, programs: Path, tmp_path: Path) -> None:
    works(gate, "exec_command", {"cmd": COMMAND})
    provider = f'{{name = "leyden", base_url = "{gate.url}/v1", env_key = "OPENAI_API_KEY", wire_api = "responses"}}'
    options = ["-m", "policy", "-c", "model_provider=leyden", "-c", f"model_providers.leyden={provider}"]
    codex = programs / "@openai" / "codex" / "bin" / "codex.js"
    without_sandbox = ["--skip-git-repo-check", "--sandbox", "danger-full-access"]
    out = await leyden_run(gate, tmp_path, NODE, codex, "exec", *without_sandbox, *options, "Write foo to out.txt")
    assert out.strip().endswith("All done.")
    assert (tmp_path / "work" / "out.txt").read_text() == "foo\n"
    is_one_rollout(gate, "/v1/responses")
    assert "multi_agent_v1__spawn_agent" in [tool["function"]["name"] for tool in gate.engine.bodies[0]["tools"]]
