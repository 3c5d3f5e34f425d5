"""Programs written as their frameworks' documentation writes them, unchanged, and the exact story that came out."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundled import NODE
from framework_support import PROGRAMS, QUESTIONS, Doors, Story, open_doors, python_of
from leyden.kafka.settings import KafkaSettings
from leyden.stack.processes import Supervisor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def doors(kafka_servers: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder, kafka = tmp_path_factory.mktemp("doors"), KafkaSettings(bootstrap_servers=kafka_servers)
    with Supervisor(f"frameworks-{os.getpid()}", folder / "logs") as supervisor:
        yield open_doors(supervisor, kafka, redis_server_url, f"t{secrets.token_hex(4)}.", folder)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_what_a_framework_does_is_recorded_as_it_was(
    doors: Doors, program: Path, question: str, request: pytest.FixtureRequest
) -> None:
    command = [python_of(PROGRAMS[program]), program]
    told = doors.run(command, program.stem, QUESTIONS[question])
    assert told == expected(f"{program.stem}.{question}", told, request)


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_an_agent_for_node_does_is_recorded_as_it_was(
    doors: Doors, node_folder: Path, question: str, request: pytest.FixtureRequest
) -> None:
    command: list[str | Path] = [NODE, "--import", node_folder / "instrumentation.mjs", node_folder / "agent.mjs"]
    told = doors.run(command, "node_openai", QUESTIONS[question])
    assert told == expected(f"node_openai.{question}", told, request)


def expected(name: str, told: Story, request: pytest.FixtureRequest) -> Story:
    """What is kept under `name`; with `--update-golden` that is `told`."""
    kept = HERE / "expected" / f"{name}.json"
    if request.config.getoption("--update-golden"):
        kept.write_text(json.dumps(told, indent=2) + "\n")
    found: Story = json.loads(kept.read_text())
    return found
