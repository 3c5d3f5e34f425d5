"""`leyden keys`: what is sent, what is shown, and mistakes in one sentence."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from leyden.cli.app import app
from leyden.cli.keys import KeyAdmin, Wanted, expiry, row
from leyden.client.gateway import GatewayClient
from leyden.stack.errors import StackError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TEXT = {"COLUMNS": "250", "TERM": "dumb"}


class AdminApi:
    """The gateway's admin API, answering as it is told to."""

    def __init__(self, status: int = 200, answer: Any = None) -> None:
        self.requests: list[httpx.Request] = []
        self.status, self.answer = status, answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, json=self.answer)

    def admin(self) -> KeyAdmin:
        return KeyAdmin(GatewayClient("http://gateway", "boot", transport=httpx.MockTransport(self)))


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEYDEN_GATEWAY_URL", "LEYDEN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=TEXT)


def test_a_key_is_asked_for_with_everything_that_was_said() -> None:
    api = AdminApi(201, {"key": "lk-1-x", "key_id": "1"})
    wanted = Wanted("ci", ["runner"], "math", ["policy*"], 60, None, 4, NOW)
    assert api.admin().create(wanted)["key"] == "lk-1-x"
    (request,) = api.requests
    assert (request.method, request.url.path, request.headers["authorization"]) == (
        "POST",
        "/leyden/v1/keys",
        "Bearer boot",
    )
    assert json.loads(request.content) == {
        "name": "ci",
        "scopes": ["runner"],
        "project": "math",
        "models": ["policy*"],
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "concurrency": 4,
        "expires_at": "2026-05-01T12:00:00+00:00",
    }


def test_a_key_id_stays_one_part_of_the_path() -> None:
    api = AdminApi(200, {"key_id": "a/b"})
    api.admin().revoke("../rollouts")
    assert api.requests[0].url.raw_path == b"/leyden/v1/keys/..%2Frollouts"


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "Pass a valid key"), (403, "scope admin"), (404, "no key 'x'"), (503, "try again")]
)
def test_a_refusal_is_the_gateways_own_sentence_and_what_to_do(status: int, hint: str) -> None:
    said = {404: "no key 'x'", 503: "try again"}.get(status, "said so")
    api = AdminApi(status, {"error": {"type": "t", "message": said}})
    with pytest.raises(StackError, match=hint):
        api.admin().revoke("x")
    with pytest.raises(StackError, match=f"answered {status}"):
        AdminApi(status, "no json object").admin().list()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("4w", NOW + timedelta(weeks=4)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T10:00:00+02:00", datetime(2027, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_time_from_now_or_a_date(text: str | None, moment: datetime | None) -> None:
    assert expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["soon", "30", "d", "30y", "-1d", ""])
def test_an_expiry_that_is_neither_is_a_sentence(text: str) -> None:
    with pytest.raises(StackError, match="--expires"):
        expiry(text, NOW)


def test_the_list_says_what_a_key_is_for_and_whether_it_opens() -> None:
    key = {
        "key_id": "1", "name": "ci", "scopes": ["agent", "runner"], "project": "math", "models": ["policy*"],
        "requests_per_minute": 60, "tokens_per_minute": None, "concurrency": 4, "revoked_at": None, "expires_at": None,
    }  # fmt: skip
    assert row(key, NOW) == ["1", "ci", "active", "agent runner", "math", "policy*", "60 requests/min, 4 at a time"]
    assert row(key | {"expires_at": "2026-05-01T12:00:00Z"}, NOW)[2] == "expired 2026-05-01"
    assert row(key | {"expires_at": "2026-06-01T12:00:00Z"}, NOW)[2] == "until 2026-06-01"
    forgotten = {"key_id": "1", "name": "ci", "revoked_at": "2026-04-01T00:00:00Z"}
    assert row(forgotten, NOW) == ["1", "ci", "revoked 2026-04-01", "-", "-", "all", "none"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            ["create"],
            ["--name", "--scope", "--project", "--models", "--requests-per-minute", "--tokens-per-minute", "--expires"],
        ),
        (["create"], ["--concurrency", "--gateway", "--api-key", "--data-dir"]),
        (["list"], ["--gateway", "--api-key", "--data-dir"]),
        (["revoke"], ["--gateway", "--api-key", "--data-dir"]),
    ],
)
def test_help_names_every_option(command: list[str], options: list[str]) -> None:
    done = run("keys", *command, "--help")
    assert done.exit_code == 0
    assert [option for option in options if option not in done.output] == []


def test_without_a_gateway_or_a_stack_it_says_where_to_look(tmp_path: Path) -> None:
    done = run("keys", "list", "--data-dir", tmp_path / "none")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
