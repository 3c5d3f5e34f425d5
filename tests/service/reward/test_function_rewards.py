"""Reward functions on their way through the service: called once, named when they fail, the same again in a replay."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from leyden.events import Event, RewardAssigned, RewardsCompleted
from leyden.events.codec import encode
from leyden.reward import handlers
from leyden.reward.adapters import function_runner
from leyden.reward.app import rulebook
from leyden.reward.core.answer import Answer
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.rules import Emitted, FunctionRule
from leyden.reward.functions import RolloutView
from leyden.reward.sandbox.runner import FunctionRunner
from leyden.reward.settings import RewardSection
from service.reward.reward_fakes import KilledError, World
from unit.reward.reward_builders import a_call, an_end

MODULE = "service.reward.functions_for_tests"
SECTION = RewardSection.model_validate(
    {
        "functions": [
            {"entry": f"{MODULE}:as_told", "timeout_s": 1, "retries": 1, "memory_mb": 300},
            {"entry": f"{MODULE}:many", "batched": True},
            {"entry": f"{MODULE}:named", "weight": 0.5},
            {"grader": "exact_match"},
        ]
    }
)


def rollout(n: int, output: str) -> list[Event]:
    id_ = "1e7de" + f"{n:023x}"
    call = a_call(n, 1).model_copy(update={"rollout_id": id_})
    return [call, an_end([call], rollout_id=id_, output=output)]


@pytest.fixture
async def runner() -> AsyncIterator[FunctionRunner]:
    made = function_runner(SECTION.functions)
    await made.start()
    yield made
    await made.close()


def failures(world: World) -> dict[str, list[str]]:
    return {e.rollout_id: e.failed_rules for e in world.log.on("rewards.v1") if isinstance(e, RewardsCompleted)}


async def test_a_function_that_breaks_is_named_and_the_other_rewards_stand(runner: FunctionRunner) -> None:
    world = World(rulebook(SECTION), functions=runner)
    told = {1: "loop", 2: "4", 3: "memory", 4: "exit", 5: "nan", 6: "raise"}
    await world.deliver(*(event for n, output in told.items() for event in rollout(n, output)))
    await world.feed_back()
    by_output = {told[int(id_[5:], 16)]: failed for id_, failed in failures(world).items()}
    assert {output: [f.split(": ")[:2] for f in failed] for output, failed in by_output.items()} == {
        "loop": [["as_told", "timeout"]],
        "4": [],
        "memory": [["as_told", "memory"]],
        "exit": [["as_told", "lost"]],
        "nan": [["as_told", "malformed"]],
        "raise": [["as_told", "exception"]],
    }
    rewards = [e for e in world.log.on("rewards.v1") if isinstance(e, RewardAssigned)]
    assert [(r.rule, r.name, r.value, r.weight) for r in rewards if r.rollout_id.endswith("2")] == [
        ("as_told", "as_told", 1.0, 1.0),
        ("many", "many", 1.0, 1.0),
        ("named", "a", 1.5, 0.5),
        ("named", "b", 2.0, 0.5),
        ("exact_match", "exact_match", 1.0, 1.0),
    ]
    assert sum(r.rule == "many" for r in rewards) == 6
    assert not any(r.rule == "as_told" for r in rewards if not r.rollout_id.endswith("2"))


async def test_a_replay_in_other_batches_and_processes_gives_the_same_bytes(runner: FunctionRunner) -> None:
    events = [event for n, output in enumerate(["x", "raise", "4", "nan", "yyyy"]) for event in rollout(n, output)]
    live = World(rulebook(SECTION), functions=runner)
    await live.deliver(*events)
    await live.feed_back()
    other = function_runner(SECTION.functions)
    replay = World(rulebook(SECTION), decides=False, functions=other)
    for event in reversed([*events, *live.log.on("rollouts.v1")]):
        await replay.deliver(event)
    await other.close()
    assert replay.log.distinct("rewards.v1") == live.log.distinct("rewards.v1")
    assert {encode(e) for e in replay.log.on("rewards.v1")} == {encode(e) for e in live.log.on("rewards.v1")}


class Counting:
    """`Functions` that count views and die at the second call."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def answers(self, views: Sequence[RolloutView]) -> list[Mapping[str, Answer]]:
        self.seen += [view.rollout_id for view in views]
        if len(self.seen) == 2:
            raise KilledError
        return [{"f": Answer({"": 1.0})} for _ in views]


async def test_what_functions_gave_before_the_service_died_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "TOGETHER", 1)
    functions = Counting()
    world = World(Rulebook((Emitted(), FunctionRule(name="f")), 0.5), functions=functions)
    await world.deliver(*rollout(1, "a"), *rollout(2, "b"), *rollout(3, "c"))
    await world.feed_back()
    assert len(failures(world)) == 3
    assert len(functions.seen) == 4  # the one at work when the service died is called again, the one before it is not


async def test_no_function_is_called_for_a_failed_rollout() -> None:
    functions = Counting()
    world = World(Rulebook((FunctionRule(name="f"),), 0.5), functions=functions)
    call, end = rollout(1, "a")
    await world.deliver(call, end.model_copy(update={"status": "failed"}))
    await world.feed_back()
    assert (functions.seen, list(failures(world).values())) == ([], [[]])
