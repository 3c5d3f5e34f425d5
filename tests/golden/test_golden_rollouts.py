"""Recorded rollouts of real agent frameworks: the rewards and transitions that come of them, number by number."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from credit_support import CreditLoop, CreditPublisher
from leyden.credit.core.section import CreditSection
from leyden.events import (
    Event,
    GroupCredited,
    ModelCallRecorded,
    RewardAssigned,
    SequenceCredited,
    unpack_floats,
    unpack_ints,
)
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, decode
from leyden.kafka import Delivered
from leyden.reward.app import rulebook
from leyden.reward.settings import RewardSection
from service.reward.reward_fakes import World

HERE = Path(__file__).parent
RECORDINGS = sorted((HERE / "recordings").glob("*.jsonl"))
RUN = yaml.safe_load((HERE / "run.yaml").read_text())
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "identical"},
    {"strategy": "step", "agents": [{"name": "triage", "train": False}, {"name": "*"}]},
]


def read(recording: Path) -> list[Delivered[Event]]:
    """What the topics held, but for the rewards."""
    found = []
    for line in recording.read_text().splitlines():
        record = json.loads(line)
        topic, partition, offset = record["origin"].split("/")
        event = decode(topic, json.dumps(record["event"]).encode())
        found.append(Delivered(event, topic, "", int(partition), int(offset), record["origin"]))
    return [one for one in found if one.topic != REWARDS]


async def rewarded(recorded: Sequence[Delivered[Event]]) -> list[Event]:
    world = World(rulebook(RewardSection.model_validate(RUN["reward"])), decides=False)
    await world.deliver(*(one.event for one in recorded))
    return world.log.on(REWARDS)


async def credited(
    recorded: Sequence[Delivered[Event]], rewards: Sequence[Event], section: dict[str, Any]
) -> CreditPublisher:
    publisher = CreditPublisher()
    given = [Delivered(event, REWARDS, "", 0, offset, f"{REWARDS}/0/{offset}") for offset, event in enumerate(rewards)]
    loop = CreditLoop(publisher, section=CreditSection.model_validate(section))
    await loop.on_batch([*recorded, *given])
    return publisher


def names_of_calls(recorded: Sequence[Delivered[Event]]) -> dict[str, str]:
    """Call id → `<rollout's letter><number>`, in the order in which the calls were made."""
    calls = sorted((one.event for one in recorded if isinstance(one.event, ModelCallRecorded)), key=_start)
    letters: dict[str, str] = {}
    counts: dict[str, int] = {}
    names = {}
    for call in calls:
        assert call.rollout_id is not None
        letter = letters.setdefault(call.rollout_id, "ABC"[len(letters)])
        counts[letter] = counts.get(letter, 0) + 1
        names[call.call_id] = f"{letter}{counts[letter]}"
    return names


def _start(call: ModelCallRecorded) -> tuple[object, str]:
    return call.started_at, call.call_id


def shown(reward: RewardAssigned, names: dict[str, str]) -> list[Any]:
    return [reward.rule, reward.name, round(reward.value * reward.weight, 9), names.get(reward.call_id or "")]


def described(publisher: CreditPublisher, names: dict[str, str]) -> dict[str, Any]:
    sequences = [_sequence(sequence, names) for sequence in publisher.sequences]
    return {
        "sequences": sorted(sequences, key=lambda s: s["calls"][0]),
        "groups": [_group(g) for g in publisher.groups],
    }


def _sequence(sequence: SequenceCredited, names: dict[str, str]) -> dict[str, Any]:
    calls = [
        [
            names[t.call_id], t.agent_name, t.policy_version, [t.start, t.end],
            round(t.reward, 9), round(t.return_, 9), round(t.advantage, 6),
        ]
        for t in sequence.transitions
    ]  # fmt: skip
    return {"calls": calls, "token_ids": unpack_ints(sequence.token_ids).tolist()}


def _group(group: GroupCredited) -> dict[str, Any]:
    return group.model_dump(include={"policy", "members", "left_out", "reward_mean", "zero_variance"}, mode="json")


async def outcome(recording: Path) -> dict[str, Any]:
    recorded = read(recording)
    names = names_of_calls(recorded)
    rewards = await rewarded(recorded)
    assigned = [shown(event, names) for event in rewards if isinstance(event, RewardAssigned)]
    found: dict[str, Any] = {"rewards": sorted(assigned, key=lambda reward: (reward[3] or "Z", reward[0]))}
    for section in STRATEGIES:
        found[section["strategy"]] = described(await credited(recorded, rewards, RUN["credit"] | section), names)
    return found


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_a_recorded_frameworks_rollouts_give_the_expected_transitions(
    recording: Path, request: pytest.FixtureRequest
) -> None:
    expected = HERE / "expected" / f"{recording.stem}.json"
    found = await outcome(recording)
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(_readable(found))
    assert found == json.loads(expected.read_text())


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_what_a_framework_was_answered_is_trained_exactly_once_and_nothing_else(recording: Path) -> None:
    """Independent of the expectations: masks against the recorded responses. Instructor forces the tool choice, which
    shapes what is sampled, so its calls are not trained.
    """
    recorded = read(recording)
    publisher = await credited(recorded, await rewarded(recorded), RUN["credit"])
    calls = [one.event for one in recorded if isinstance(one.event, ModelCallRecorded)]
    responses = {call.call_id: call.choices[0] for call in calls}
    trained = []
    for sequence in publisher.sequences:
        ids, logprobs = unpack_ints(sequence.token_ids), unpack_floats(sequence.behaviour_logprobs)
        for transition in sequence.transitions:
            response = responses[transition.call_id]
            assert ids[transition.start : transition.end].tobytes() == response.token_ids
            assert logprobs[transition.start : transition.end].tobytes() == response.logprobs
            trained.append(transition.call_id)
        assert (logprobs != 0).sum() == sum(t.end - t.start for t in sequence.transitions)
    assert sorted(trained) == sorted(call.call_id for call in calls if not call.sampling.shaped_by)
    assert bool(trained) == (recording.stem != "instructor_extract")


ARGUMENTS = {("schema_valid_arguments", 0.1, call) for call in ("A1", "B1", "B2")}
TOOLS = {("tool_status", 0.1, "A1"), ("tool_status", -0.1, "B1"), ("tool_status", 0.1, "B2")}
REWARDED = {
    "agentscope_agent": ARGUMENTS | TOOLS,
    "langchain_js_agent": ARGUMENTS | TOOLS,
    "openai_agents_js_agent": ARGUMENTS | TOOLS,
    "mirascope_agent": ARGUMENTS,
    "openinference_anthropic": ARGUMENTS,
}
"""Recording → (rule, reward, call), by what the agent did: A asks for Leiden; B for Atlantis, which fails, then for
Delft. A loop around a client, and Mirascope, have no spans of tools."""


@pytest.mark.parametrize("name", REWARDED)
async def test_each_call_is_paid_for_what_the_tool_that_it_asked_for_did(name: str) -> None:
    recorded = read(HERE / "recordings" / f"{name}.jsonl")
    names = names_of_calls(recorded)
    assert list(names.values()) == ["A1", "A2", "B1", "B2", "B3"]
    paid = [shown(event, names) for event in await rewarded(recorded) if isinstance(event, RewardAssigned)]
    assert {(rule, value, call) for rule, _, value, call in paid if rule != "emitted"} == REWARDED[name]
    publisher = await credited(recorded, await rewarded(recorded), RUN["credit"])
    assert sorted([names[t.call_id] for t in one.transitions] for one in publisher.sequences) == [
        ["A1", "A2"], ["B1", "B2", "B3"],
    ]  # fmt: skip


def test_every_recording_has_its_topics() -> None:
    assert len(RECORDINGS) >= 3
    for recording in RECORDINGS:
        assert {one.topic for one in read(recording)} == {MODEL_CALLS, ROLLOUTS, SPANS}


def _readable(found: dict[str, Any]) -> str:
    """Indented, but for lists of plain values, which stand on a line."""
    text = json.dumps(found, indent=1, sort_keys=True)
    inner = re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match.group().split()), text)
    return (
        re.sub(r"\[\n\s*(\"[AB]\d+\",[^{}]*?)\n\s*\]", lambda m: "[" + " ".join(m.group(1).split()) + "]", inner) + "\n"
    )
