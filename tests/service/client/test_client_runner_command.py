"""`leyden runner` without a terminal: what it prints, and its exit code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from client_support import KEY, FakeGateway

AGENT = """
import logging

logging.getLogger("chatty_library").setLevel(logging.DEBUG)

class Refused(Exception):
    pass

def agent(claim):
    logging.getLogger("chatty_library").info("connected %d", claim.input["n"])
    logging.getLogger("chatty_library").warning("slow %d", claim.input["n"])
    if claim.input["n"] < good:
        return 1.0
    if claim.input["n"] % 2:
        raise Refused(f"answer {claim.input['n']}")
    return [][claim.input["n"]]
"""


def runner(gateway: FakeGateway, folder: Path, *options: str, good: int = 0) -> tuple[int, str]:
    """Exit code and stderr."""
    (folder / "my_agent.py").write_text(f"good = {good}\n{AGENT}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LEYDEN_GATEWAY_URL": gateway.url}
    command = [sys.executable, "-m", "leyden.cli", "runner", *options, "--until-empty"]
    env = environment | {"LEYDEN_API_KEY": KEY, "COLUMNS": "100"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("count", "good", "code"), [(6, 0, 1), (6, 1, 0), (0, 0, 0)])
def test_the_exit_code_says_whether_everything_failed(
    gateway: FakeGateway, tmp_path: Path, count: int, good: int, code: int
) -> None:
    gateway.enqueue(count)
    found, said = runner(gateway, tmp_path, "my_agent.py:agent", good=good)
    assert found == code, said
    assert said.splitlines()[-1].startswith(f"leyden: {count} done ({count - good} failed), 0 running")
    if count:
        assert len(re.findall(r"^(?:\w+\.)?(?:Refused: answer|IndexError: list index)", said, re.MULTILINE)) == 2
        assert said.count("Traceback (most recent call last)") == 2, "the first of each class"
        assert said.count("(more failures of this kind are only counted)") == 2
    assert "connected" not in said and said.count("slow") == count, "of other libraries, warnings only"
    assert re.search(r"[\x1b\r]", said) is None, "lines that stay readable without a terminal"


def test_a_program_without_the_reward_it_promised_is_told_of_once(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.enqueue(3)
    code, said = runner(gateway, tmp_path, "--command", "echo done", "--reward-from", "score")
    assert code == 0
    assert said.count("no reward was recorded: --reward-from score needs JSON") == 1
