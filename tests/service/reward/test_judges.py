"""From settled rollouts to recorded verdicts to rewards, whoever dies in between."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from leyden.events import (
    Choice,
    Event,
    JsonObject,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    VerdictRecorded,
)
from leyden.events.codec import encode
from leyden.kafka.delivered import Retry
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging import ChatRequest, NextStateJudge, RankingJudge, RubricJudge
from leyden.reward.core.rules import Emitted
from service.reward.judge_fakes import LEASE, FakeQueue, JudgedWorld, Script, ranked, scored
from service.reward.reward_fakes import NOW, Fuse
from unit.reward.reward_builders import T0, a_call, an_end

ROLLOUTS_G = ["1e7de" + digit * 23 for digit in "abc"]


def a_rubric(**fields: Any) -> RubricJudge:
    return RubricJudge(**({"kind": "rubric", "name": "quality", "base_url": "http://judge/v1", "model": "m"} | fields))


def a_ranking(**fields: Any) -> RankingJudge:
    return RankingJudge(**({"kind": "ranking", "name": "rank", "base_url": "http://judge/v1", "model": "m"} | fields))


def a_next_state(**fields: Any) -> NextStateJudge:
    named = {"kind": "next_state", "name": "next", "base_url": "http://judge/v1", "model": "m"}
    return NextStateJudge(**(named | fields))


def a_rollout(rollout_id: str, text: str, **end: Any) -> list[Event]:
    """One call that answered `text`, and the end."""
    call = a_call(
        1,
        1,
        {"role": "assistant", "content": text},
        rollout_id=rollout_id,
        event_id=f"call-event-{rollout_id}",
        call_id=f"call-{rollout_id}",
        request={"messages": [{"role": "user", "content": "2+2?"}]},
    )
    return [call, an_end([call], rollout_id=rollout_id, event_id=f"end-{rollout_id}", **end)]


def rewards(world: JudgedWorld, rollout_id: str) -> list[tuple[str, float, str | None]]:
    found = [e for e in world.log.on("rewards.v1") if isinstance(e, RewardAssigned) and e.rollout_id == rollout_id]
    return [(e.rule, e.value, e.call_id) for e in found]


def completed(world: JudgedWorld) -> dict[str, RewardsCompleted]:
    return {e.rollout_id: e for e in world.log.on("rewards.v1") if isinstance(e, RewardsCompleted)}


def verdicts(world: JudgedWorld) -> list[VerdictRecorded]:
    return [e for e in world.log.on("verdicts.v1") if isinstance(e, VerdictRecorded)]


async def test_a_rollout_is_rewarded_with_what_its_judge_said_once_that_is_in_the_log() -> None:
    judge = a_rubric(weight=2.0)
    world = JudgedWorld([judge], scored(0.75))
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())
    assert world.log.on("rewards.v1") == []
    await world.judge()
    [verdict] = verdicts(world)
    assert (verdict.rule, verdict.settings_hash, verdict.model) == ("quality", judge.settings_hash, "m")
    assert verdict.event_time == an_end().event_time
    assert world.log.on("rewards.v1") == []
    await world.deliver(verdict)
    assert rewards(world, ROLLOUTS_G[0]) == [("quality", 0.75, None)]
    assert completed(world)[ROLLOUTS_G[0]].failed_rules == []
    assert world.queue.jobs == {}
    assert world.waiting.all == set()


async def test_a_failed_rollout_is_judged_by_nobody() -> None:
    world = JudgedWorld([a_rubric()])
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4", status="failed"))
    await world.settle()
    assert world.endpoint.asked == []
    assert completed(world)[ROLLOUTS_G[0]].reward_ids == []


async def test_a_judge_that_failed_is_a_failed_rule_and_never_a_zero() -> None:
    def refuse(_: ChatRequest) -> str:
        raise RuleFailed(FailureKind.ENDPOINT, "HTTP 503")

    world = JudgedWorld([a_rubric()], refuse)
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.settle()
    assert rewards(world, ROLLOUTS_G[0]) == []
    assert completed(world)[ROLLOUTS_G[0]].failed_rules == ["quality: endpoint: HTTP 503"]


async def test_a_malformed_answer_is_asked_for_once_more_with_the_error_shown() -> None:
    answers = iter(["I would say good", '{"score": 0.5, "explanation": "fine"}'])
    world = JudgedWorld([a_rubric()], lambda _: next(answers))
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.settle()
    assert rewards(world, ROLLOUTS_G[0]) == [("quality", 0.5, None)]
    first, second = world.endpoint.asked
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2]["content"] == "I would say good"
    assert "no JSON object" in str(second.messages[-1]["content"])


async def test_two_malformed_answers_are_a_failure_of_that_kind() -> None:
    world = JudgedWorld([a_rubric()], lambda _: '{"score": 7}')
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.settle()
    assert len(world.endpoint.asked) == 2
    [failure] = completed(world)[ROLLOUTS_G[0]].failed_rules
    assert failure == "quality: malformed: score is 7, not a number from 0 to 1"


async def test_the_same_question_is_paid_for_once() -> None:
    world = JudgedWorld([a_rubric(), a_rubric(name="again")])
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.settle()
    await world.deliver(*a_rollout(ROLLOUTS_G[1], "4"))
    await world.settle()
    assert len(rewards(world, ROLLOUTS_G[1])) == 2
    assert len({request.key for request in world.endpoint.asked}) == 1


def ranked_by_truth(request: ChatRequest) -> str:
    return ranked(lambda text: 0.9 if "\n4\n" in text else 0.2)(request)


def ranked_or(score: float) -> Script:
    """A ranking where one is asked for, else this score."""
    return lambda request: (ranked_by_truth if "candidates" in json.dumps(request.schema) else scored(score))(request)


async def test_a_group_is_ranked_in_one_request_when_all_its_rollouts_are_over() -> None:
    world = JudgedWorld([a_ranking()], ranked_by_truth)
    for rollout, text in zip(ROLLOUTS_G[:2], ("4", "5"), strict=True):
        await world.deliver(*a_rollout(rollout, text, group_size=3))
        await world.settle()
    assert world.endpoint.asked == []
    await world.deliver(*a_rollout(ROLLOUTS_G[2], "none", group_size=3, status="failed"))
    await world.settle()
    assert len(world.endpoint.asked) == 1
    assert [rewards(world, rollout) for rollout in ROLLOUTS_G] == [[("rank", 0.9, None)], [("rank", 0.2, None)], []]
    assert world.queue.jobs == {}


async def test_rollouts_that_did_the_same_are_one_candidate() -> None:
    world = JudgedWorld([a_ranking()], ranked_by_truth)
    for rollout, text in zip(ROLLOUTS_G, ("4", "5", "4"), strict=True):
        await world.deliver(*a_rollout(rollout, text, group_size=3))
    await world.settle()
    [request] = world.endpoint.asked
    assert str(request.messages[1]["content"]).count("== Candidate") == 2
    assert [rewards(world, r)[0][1] for r in ROLLOUTS_G] == [0.9, 0.2, 0.9]


async def test_a_straggler_holds_a_group_up_for_the_stated_time_only() -> None:
    world = JudgedWorld([a_ranking(group_wait_s=60)], ranked_by_truth)
    for rollout, text in zip(ROLLOUTS_G[:2], ("4", "5"), strict=True):
        await world.deliver(*a_rollout(rollout, text, group_size=3))
    await world.settle()
    world.clock.set(NOW + timedelta(seconds=59))
    await world.settle()
    assert world.endpoint.asked == []
    world.clock.set(NOW + timedelta(seconds=60))
    await world.settle()
    assert [len(rewards(world, rollout)) for rollout in ROLLOUTS_G[:2]] == [1, 1]
    await world.deliver(*a_rollout(ROLLOUTS_G[2], "4", group_size=3))
    await world.settle()
    assert len(world.endpoint.asked) == 1
    assert verdicts(world)[-1].judgements == []
    assert "after its group had been ranked" in verdicts(world)[-1].explanation
    assert completed(world)[ROLLOUTS_G[2]].failed_rules == []
    assert world.queue.jobs == {}


async def test_nobody_is_given_up_while_old_records_are_read() -> None:
    world = JudgedWorld([a_ranking(group_wait_s=60)], ranked_by_truth)
    for rollout in ROLLOUTS_G[:2]:
        await world.deliver(*a_rollout(rollout, rollout, group_size=3))
    await world.settle()
    world.clock.set(NOW + timedelta(hours=1))
    await world.waiting.mark_behind(30)
    await world.judge()
    assert world.endpoint.asked == []
    world.clock.set(NOW + timedelta(hours=1) + LEASE)
    await world.settle()
    assert len(world.endpoint.asked) == 1


@pytest.mark.parametrize("texts", [["4"], ["4", "4"]])
async def test_a_group_without_two_different_rollouts_gives_no_opinion(texts: list[str]) -> None:
    world = JudgedWorld([a_ranking()], ranked_by_truth)
    for rollout, text in zip(ROLLOUTS_G, texts, strict=False):
        await world.deliver(*a_rollout(rollout, text, group_size=len(texts)))
    await world.settle()
    assert world.endpoint.asked == []
    assert [verdict.judgements for verdict in verdicts(world)] == [[]] * len(texts)
    assert all(e.reward_ids == e.failed_rules == [] for e in completed(world).values())
    assert len(completed(world)) == len(texts)


def a_conversation() -> tuple[list[ModelCallRecorded], RolloutEnded]:
    """Two actions of the policy; the user corrects the first one, and nothing follows the second."""
    asked: list[JsonObject] = [{"role": "user", "content": "The capital of Australia?"}]
    first: JsonObject = {"role": "assistant", "content": "Sydney."}
    told: list[JsonObject] = [*asked, first, {"role": "user", "content": "No, think again."}]
    second: JsonObject = {"role": "assistant", "content": "Canberra."}
    calls = [
        a_call(n, n, request={"messages": messages}, choices=[Choice(index=0, message=said)], policy="policy")
        for n, messages, said in ((1, asked, first), (2, told, second))
    ]
    return calls, an_end(calls)


async def test_what_comes_next_judges_the_action_before() -> None:
    calls, end = a_conversation()
    world = JudgedWorld([a_next_state()], scored(-1.0))
    await world.deliver(*calls, end)
    await world.settle()
    assert rewards(world, end.rollout_id) == [("next", -1.0, "call-1")]
    [request] = world.endpoint.asked
    _, _, came_next = str(request.messages[1]["content"]).partition("== What came next ==")
    assert "No, think again." in came_next
    assert "Canberra" not in str(request.messages)


async def test_dying_at_any_step_changes_no_byte_and_pays_nothing_twice() -> None:
    judges, script = [a_rubric(), a_ranking()], ranked_or(0.5)
    one, two = (a_rollout(rollout, text) for rollout, text in zip(ROLLOUTS_G[:2], ("4", "5"), strict=True))
    unharmed = JudgedWorld(judges, script)
    await unharmed.live(one, two)
    assert len(unharmed.endpoint.asked) == 3
    assert len(completed(unharmed)) == 2
    assert unharmed.fuse.steps > 60
    for at in range(unharmed.fuse.steps):
        world = JudgedWorld(judges, script, fuse=Fuse(at))
        await world.live(one, two)
        assert world.log.distinct("rewards.v1") == unharmed.log.distinct("rewards.v1"), at
        assert world.log.distinct("verdicts.v1") == unharmed.log.distinct("verdicts.v1"), at
        assert {encode(e) for e in world.log.on("rewards.v1")} == set(unharmed.log.distinct("rewards.v1").values()), at
        assert len(world.endpoint.asked) == len(unharmed.endpoint.asked), at
        assert (world.queue.jobs, world.waiting.all) == ({}, set()), at


async def test_a_replay_follows_recorded_verdicts_and_asks_nobody() -> None:
    events = [*a_rollout(ROLLOUTS_G[0], "4"), *a_rollout(ROLLOUTS_G[1], "5")]
    live = JudgedWorld(
        [a_rubric(), a_ranking()], lambda r: (ranked_by_truth if "andidates" in str(r) else scored(0.3))(r)
    )
    await live.deliver(*events)
    await live.settle()
    replay = JudgedWorld(live.judges, scored(0.9), decides=False)
    for event in [*reversed(live.own()), *events]:
        await replay.deliver(event)
    await replay.settle()
    assert replay.endpoint.asked == []
    assert replay.log.distinct("rewards.v1") == live.log.distinct("rewards.v1")


async def test_a_replay_with_another_rubric_asks_anew() -> None:
    live = JudgedWorld([a_rubric()], scored(0.3))
    await live.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await live.settle()
    replay = JudgedWorld([a_rubric(rubric="brevity")], scored(0.9), decides=False)
    await replay.deliver(*a_rollout(ROLLOUTS_G[0], "4"), *live.own())
    await replay.settle()
    assert "brevity" in str(replay.endpoint.asked[0].messages)
    assert rewards(replay, ROLLOUTS_G[0]) == [("quality", 0.9, None)]


async def test_the_first_verdict_in_the_log_is_the_one_that_counts() -> None:
    world = JudgedWorld([a_rubric()], scored(0.3))
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())
    await world.judge()
    [verdict] = verdicts(world)
    other = verdict.model_copy(update={"judgements": [verdict.judgements[0].model_copy(update={"value": 1.0})]})
    await world.deliver(verdict, other)
    assert rewards(world, ROLLOUTS_G[0]) == [("quality", 0.3, None)]


async def test_a_judge_that_is_slow_holds_up_no_other_rollout() -> None:
    answered = asyncio.Event()

    class SlowEndpoint:
        async def ask(self, request: ChatRequest) -> str:
            await answered.wait()
            return '{"score": 1, "explanation": ""}'

    world = JudgedWorld([a_rubric()])
    world.endpoint = SlowEndpoint()  # type: ignore[assignment]
    world.restart()
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())
    await world.worker.turn()
    await world.deliver(*a_rollout(ROLLOUTS_G[1], "4", status="failed"))
    await world.deliver(*world.own()[1:])
    assert list(completed(world)) == [ROLLOUTS_G[1]]
    answered.set()
    await world.worker.idle()
    await world.settle()
    assert set(completed(world)) == set(ROLLOUTS_G[:2])


async def test_a_claim_is_kept_alive_while_its_judge_thinks() -> None:
    answered = asyncio.Event()

    class SlowEndpoint:
        async def ask(self, request: ChatRequest) -> str:
            await answered.wait()
            return '{"score": 1, "explanation": ""}'

    world = JudgedWorld([a_rubric()])
    world.endpoint = SlowEndpoint()  # type: ignore[assignment]
    world.restart()
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())
    await world.worker.turn()
    world.clock.set(NOW + timedelta(seconds=20))
    await world.worker.turn()
    world.clock.set(NOW + timedelta(seconds=40))
    assert await world.queue.claim(world.clock.now(), world.clock.now() + LEASE, 10) == []
    answered.set()
    await world.worker.idle()
    assert world.queue.jobs == {}


async def test_a_store_that_is_away_leaves_the_job_to_the_next_try() -> None:
    world = JudgedWorld([a_rubric()])
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())

    async def away(subjects: object) -> None:
        raise Retry("Redis did not answer")

    load, world.evidence.load = world.evidence.load, away  # type: ignore[method-assign,assignment]
    await world.judge()
    assert len(world.queue.jobs) == 1
    world.evidence.load = load  # type: ignore[method-assign]
    world.clock.set(NOW + LEASE)
    await world.judge()
    assert (len(verdicts(world)), world.queue.jobs) == (1, {})


async def test_a_changed_judge_is_asked_of_what_still_waits() -> None:
    world = JudgedWorld([a_ranking()], ranked_by_truth)
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.settle()
    world.judges = (a_rubric(),)
    world.book = JudgedWorld(world.judges).book
    world.endpoint.script = scored(1.0)
    world.restart()
    world.clock.set(NOW + timedelta(minutes=20))
    await world.sweeper.sweep()
    await world.settle()
    assert rewards(world, ROLLOUTS_G[0]) == [("quality", 1.0, None)]
    assert world.queue.jobs == {}


async def test_too_many_waiting_attempts_hold_a_batch_back_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("leyden.reward.judges.submit.asyncio.sleep", sleep)
    world = JudgedWorld([a_rubric()])
    world.queue.jobs = {str(n): NOW + timedelta(days=1) for n in range(1001)}
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
    await world.deliver(*world.own())
    assert 4.9 < sum(slept) < 5.2


async def test_what_is_in_hand_is_handed_on_at_the_end() -> None:
    world = JudgedWorld([a_rubric()])
    world.queue = FakeQueue()
    world.restart()
    await world.queue.add({"attempt:x:0": T0})

    async def never(subjects: object) -> None:
        await asyncio.Event().wait()

    world.evidence.load = never  # type: ignore[method-assign,assignment]
    await world.worker.turn()
    assert world.queue.jobs["attempt:x:0"] > NOW
    await world.worker.release()
    assert world.queue.jobs["attempt:x:0"] == NOW


async def test_a_verdict_is_one_rule_beside_the_others() -> None:
    world = JudgedWorld([a_rubric()], scored(0.5), rules=[Emitted()])
    await world.deliver(*a_rollout(ROLLOUTS_G[0], "4", reward=1.0))
    await world.settle()
    assert rewards(world, ROLLOUTS_G[0]) == [("emitted", 1.0, None), ("quality", 0.5, None)]


async def test_the_worker_runs_until_it_is_stopped_and_drops_nothing() -> None:
    class SlowEndpoint:
        async def ask(self, request: ChatRequest) -> str:
            await asyncio.sleep(0.02)
            return '{"score": 1, "explanation": ""}'

    world = JudgedWorld([a_rubric()])
    world.endpoint = SlowEndpoint()  # type: ignore[assignment]
    world.restart()
    running = asyncio.create_task(world.worker.run())
    rollouts = ["1e7de" + f"{n:023x}" for n in range(20)]
    async with asyncio.timeout(20):
        for n, rollout in enumerate(rollouts):
            await world.deliver(*a_rollout(rollout, str(n)))
            await asyncio.sleep(0.005)
        while len(completed(world)) < len(rollouts):
            events = world.own()[world.read :]
            world.read += len(events)
            if events:
                await world.deliver(*events)
            await asyncio.sleep(0.01)
    assert len(verdicts(world)) == len(rollouts)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
