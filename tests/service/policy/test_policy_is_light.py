import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["leyden.policy.app", "leyden.policy.engines.gate", "leyden.policy.engines.__main__"]
)
def test_agent_gate_and_launcher_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(' '.join({{'torch', 'transformers', 'vllm'}} & sys.modules.keys()) or None)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
