"""Every command of the documentation is run by test_documented_commands_run, or named with a reason and who runs it."""

from documented_commands import ELSEWHERE, READING_ORDER, commands, documents
from roots import ROOT


def test_every_document_with_commands_is_read_by_the_test_that_runs_them() -> None:
    assert set(documents()) == set(READING_ORDER)


def test_commands_are_read_as_a_reader_would_type_them() -> None:
    read = commands(ROOT / "README.md")
    assert read[:2] == ["make demo", "make test"]
    assert read[3].startswith("./leyden train my_agent.py:agent")
    assert read[4] == "./leyden up"
    assert "leyden errors --since 12h" in commands(ROOT / "docs/errors.md")
    assert not any(command.startswith(("#", "$")) for name in READING_ORDER for command in commands(ROOT / name))


def test_commands_that_run_elsewhere_are_documented_and_are_run_there() -> None:
    documented = {command for name in READING_ORDER for command in commands(ROOT / name)}
    assert set(ELSEWHERE) <= documented
    for command, elsewhere in ELSEWHERE.items():
        assert elsewhere.shown_by in (ROOT / elsewhere.file).read_text(), command
