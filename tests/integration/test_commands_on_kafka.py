"""The commands that read the log, on a real Kafka: one recorded group, its replay, and a second credit service."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import command_support as s
from fakes import TOPIC_OF
from leyden.cli.app import app
from leyden.cli.shell import console
from leyden.events import Event
from leyden.events.codec import MODEL_CALLS
from leyden.ids import rollout_id_of
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.reading import Log, LogLocation

pytestmark = pytest.mark.integration
TOO_BIG = 1_500
"""Values above this go to the claim store: the calls with their texts do, and must be read from there."""


@pytest.fixture
def recorded(kafka_servers: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of commands on a broker that is no stack's, with the group in its topics."""
    claims = f"file://{tmp_path}/claims"
    for name, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", kafka_servers),
        ("LEYDEN_TOPIC_PREFIX", topic_prefix),
        ("LEYDEN_CLAIMS_URL", claims),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(console, "width", 120)
    asyncio.run(_record(LogLocation(KafkaSettings(bootstrap_servers=kafka_servers), topic_prefix, claims)))


async def _record(location: LogLocation) -> None:
    replay = "again-" + location.prefix
    for prefix in (location.prefix, replay):
        await ensure_topics(location.kafka, prefix)
    async with _publisher(location, location.prefix) as live, _publisher(location, replay) as again:
        await live.publish_all(
            _outgoing([*s.life(s.A, s.calls_of_a(), 1.0), s.tool_span(), *s.life(s.B, [s.call_of_b()], 0.0)])
        )
        async with Log(location) as log:
            origins = {one.event.call_id: one.origin async for one in log.read(MODEL_CALLS)}  # type: ignore[attr-defined]
        await live.publish_all(_outgoing(_credited(origins, (0.7, -0.7))))
        await live.publish_all(_outgoing(_credited(origins, (0.7, 0.7), credit="other")))
        await again.publish_all(_outgoing(_credited(origins, (-0.7, -0.7))))


def _publisher(location: LogLocation, prefix: str) -> KafkaPublisher:
    return KafkaPublisher(location.kafka, prefix, ClaimStore(location.claims_url), max_value_bytes=TOO_BIG)


def _credited(origins: dict[str, str], advantages: tuple[float, float], **changes: object) -> list[Event]:
    of_a = s.sequence(s.calls_of_a(), [origins["a1"], origins["a2"]], advantages[0], (0, 2), 1.0, **changes)
    of_b = s.sequence([s.call_of_b()], [origins["b1"]], advantages[1], (1, 2), 0.0, **changes)
    return [of_a, of_b, s.group_end(2, **changes)]


def _outgoing(events: list[Event]) -> list[Outgoing]:
    return [Outgoing(TOPIC_OF[type(event)], s.key_of(event), event) for event in events]


def run(*arguments: object) -> str:
    """What the command printed, unwrapped."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--data-dir", "no-stack-here"])
    return " ".join(done.output.split())


def test_commands_read_what_was_recorded(recorded: None, topic_prefix: str, tmp_path: Path) -> None:
    shown = run("inspect", s.A, "--json")
    report = json.loads(shown[shown.index("{") :])
    assert [call["trained"][0]["advantage"] for call in report["calls"]] == [0.7, 0.7]
    assert [credit["credit"] for credit in report["credits"]] == ["", "other"]
    assert [tool["asked_by"] for tool in report["tools"]] == [0]
    assert "No rollout" in run("inspect", rollout_id_of("unknown", 0))

    out = tmp_path / "out.jsonl"
    exported = run("export", "--format", "jsonl", "--out", out)
    assert "3 transitions of 2 sequences in 1 groups" in exported
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["call_id"]: row["action_message"]["content"] for row in rows} == {
        "a1": "",
        "a2": "It is 2,962 m high.",
        "b1": "High.",
    }
    assert "2 transitions of 1 sequences" in run("export", "--format", "trl", "--out", out, "--min-reward", 1)
    assert "No transitions match these options" in run("export", "--out", out, "--policy", "q")

    shown = run("watch", "--json")
    assert "{" in shown, shown
    watched = json.loads(shown[shown.index("{") :])
    assert [(point["version"], point["mean_reward"]) for point in watched["curve"]] == [("p@3", 0.5)]
    assert watched["groups"]["credited"] == 2, "by two credit services"
    assert "p@3" in run("watch", "--once")

    listed = run("rollouts", "--max-reward", "0.5")
    assert f"{s.B}0000" in listed and s.A not in listed
    assert f"{s.A}0000" in run("rollouts", "--limit", 0, "--version", "p@3")
    assert run("models", "list").startswith("version")

    rewards = run("rewards", "--by", "version")
    assert "p@3" in rewards
    assert "outcome *" in rewards
    assert "No validation rollout has rewards" in run("rewards", "--mode", "validation")

    other = run("replay", "diff", "live", "credit:other")
    assert "2 equal, 1 changed, 0 only in live" in other
    replay = run("replay", "diff", "live", f"again-{topic_prefix.removesuffix('.')}")
    assert "1 equal, 2 changed" in replay
