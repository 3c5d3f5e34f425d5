"""What the README shows works: its run file is one, and its files and commands exist."""

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leyden.cli.app import app
from leyden.credit.core.section import CreditSection
from leyden.reward.core.calls import call_view
from leyden.reward.functions import RolloutView, TaskView
from leyden.reward.settings import RewardSection
from leyden.settings import load_section
from leyden.trainer.settings import TrainerSettings
from leyden.training.door import Asked, plan_of
from roots import ROOT
from unit.reward.reward_builders import a_call

PROSE = ("docs", "services", "examples", "benchmarks")
README = (ROOT / "README.md").read_text()


def test_the_run_file_is_accepted_by_every_service(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    assert load_section(path, "reward", RewardSection).functions[0].entry == "my_rewards:score"
    assert load_section(path, "credit", CreditSection).policies == ["policy"]
    assert load_section(path, "trainer", TrainerSettings).groups_per_step == 8


def test_the_agent_reward_and_task_are_what_train_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in re.findall(r"```python\n(# (my_\w+\.py)\n.*?)```", README, re.DOTALL):
        (tmp_path / code[1]).write_text(code[0])
    [task] = re.findall(r"^echo '(.*)' >> tasks.jsonl", README, re.MULTILINE)
    (tmp_path / "tasks.jsonl").write_text(f"{task}\n{task.replace('3 1 2', '4 6 5')}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plan = plan_of(Asked(agent="my_agent.py:agent", tasks="tasks.jsonl", reward="my_rewards.py:score", holdout=1))
    [reward] = load_section(plan.stack.run_file, "reward", RewardSection).functions
    assert reward.entry == "my_rewards:score"
    score = importlib.import_module("my_rewards").score
    answers = [call_view(a_call(1, 1, {"role": "assistant", "content": said})) for said in (" 1 2 3", "3 1 2")]
    task_view = TaskView(metadata={"answer": "1 2 3"})
    scores = [score(RolloutView("r", 0, task_view, (one,), (), None, "succeeded", None)) for one in answers]
    assert scores == [1.0, 0.0]


DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in PROSE for path in (ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("document", [str(path.relative_to(ROOT)) for path in sorted(DOCUMENTS)])
def test_every_link_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", text):
        linked = (ROOT / document).parent / target if target else ROOT / document
        assert linked.exists(), f"{document} → {target}"
        if anchor:
            assert anchor in anchors(linked), f"{document} → {target}#{anchor}"


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^leyden ([a-z]+)|`leyden ([a-z]+)", README, re.MULTILINE))))
def test_every_command_exists(command: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, [command[0] or command[1], "--help"])
    assert done.exit_code == 0
    assert "usage" in done.output.lower()


def test_every_documented_command_exists_and_every_command_is_documented() -> None:
    import typer.main

    documented = set(re.findall(r"^\| `leyden ([a-z]+)", (ROOT / "docs/commands.md").read_text(), re.MULTILINE))
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert commands - documented == {"down", "status"}, "`up` has them in its row"
    assert documented <= commands
