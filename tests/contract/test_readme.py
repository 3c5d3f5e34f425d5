"""What the README shows works: its run file is one, and its files and commands exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leyden.cli.app import app
from leyden.credit.core.section import CreditSection
from leyden.reward.settings import RewardSection
from leyden.settings import load_section
from leyden.trainer.settings import TrainerSettings
from roots import ROOT

PROSE = ("docs", "services", "examples", "benchmarks")
README = (ROOT / "README.md").read_text()


def test_the_run_file_is_accepted_by_every_service(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    assert load_section(path, "reward", RewardSection).functions[0].entry == "my_rewards:score"
    assert load_section(path, "credit", CreditSection).policies == ["policy"]
    assert load_section(path, "trainer", TrainerSettings).groups_per_step == 8


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
