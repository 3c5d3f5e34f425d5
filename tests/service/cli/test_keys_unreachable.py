"""`leyden keys` against an address where nobody listens."""

import pytest
from typer.testing import CliRunner

from leyden.cli.app import app


def test_an_address_where_nobody_answers_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    done = CliRunner().invoke(
        app, ["keys", "list", "--gateway", "http://127.0.0.1:9", "--api-key", "k"], env={"COLUMNS": "250"}
    )
    assert done.exit_code == 1
    assert "No answer from" in done.output
    assert "Check the URL of the gateway." in done.output
