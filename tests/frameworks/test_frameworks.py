"""Programs written as their frameworks' documentation writes them, unchanged, and the exact story that came out."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework_support import ROOT, Doors, open_doors
from leyden.kafka.settings import KafkaSettings
from leyden.stack.processes import Supervisor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
HERE = Path(__file__).parent
QUESTIONS = {"answered": "How many people live in Leiden?", "recovered": "How many people live in Atlantis?"}
OPENAI_2 = "frameworks-openai-2"
PROGRAMS = {
    HERE / "agents/langchain_tools.py": "frameworks",
    ROOT / "tests/golden/agents/langgraph_react.py": "frameworks",
    ROOT / "tests/golden/agents/openai_agents_handoff.py": "frameworks",
    ROOT / "tests/golden/agents/pydantic_ai_tool.py": "frameworks",
    HERE / "agents/autogen_assistant.py": OPENAI_2,
    HERE / "agents/semantic_kernel_agent.py": OPENAI_2,
    HERE / "agents/crewai_crew.py": OPENAI_2,
}
"""Each program, and the environment in which it runs (`make frameworks`)."""


@pytest.fixture(scope="module")
def doors(kafka_servers: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder, kafka = tmp_path_factory.mktemp("doors"), KafkaSettings(bootstrap_servers=kafka_servers)
    with Supervisor(f"frameworks-{os.getpid()}", folder / "logs") as supervisor:
        yield open_doors(supervisor, kafka, redis_server_url, f"t{secrets.token_hex(4)}.", folder)


def python_of(environment: str) -> Path:
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python.parent.parent.name} is not there: `make frameworks` makes it")
    return python


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_what_a_framework_does_is_recorded_as_it_was(
    doors: Doors, program: Path, question: str, request: pytest.FixtureRequest
) -> None:
    told = doors.run(python_of(PROGRAMS[program]), program, QUESTIONS[question])
    kept = HERE / "expected" / f"{program.stem}.{question}.json"
    if request.config.getoption("--update-golden"):
        kept.write_text(json.dumps(told, indent=2) + "\n")
    assert told == json.loads(kept.read_text())
