"""`leyden watch`: what is read from the log, what it shows, and what it says to do."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import command_support as s
from leyden.analysis.advice import problems
from leyden.analysis.loop import WATCHED, LoopState
from leyden.analysis.loop_report import LoopReport
from leyden.analysis.rollouts import RolloutStatus
from leyden.cli.watch_view import WatchView, as_json, lines, screen
from leyden.cli.watching import StackView, reports
from leyden.events import (
    BatchManifest,
    Event,
    Failure,
    FailureClass,
    FailureEvidence,
    PolicyPromoted,
    PolicyServed,
    QueuePaused,
    QueueResumed,
    Task,
    TaskEnqueued,
    TrainingStepCompleted,
    VersionRegistered,
)
from leyden.ids import AttemptRef, derive, rollout_id_of
from leyden.kafka.settings import KafkaSettings
from leyden.reading.follow import Follower
from leyden.reading.gateway import gateway_of_log
from leyden.reading.location import LogLocation
from leyden.reading.model_wait import ModelWait, model_wait
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.state import DataFolder, StackState

NOW = s.T0 + timedelta(minutes=5)


def enqueued(task_id: str, samples: int, mode: str = "train") -> TaskEnqueued:
    return TaskEnqueued.model_validate(
        s.ABOUT
        | {
            "event_id": derive("task", task_id),
            "task": Task(task_id=task_id, mode=mode),  # type: ignore[arg-type]
            "group_id": task_id,
            "rollout_ids": [rollout_id_of(task_id, n) for n in range(samples)],
        }
    )


def step(number: int, version: int, groups: Sequence[str] = (), **metrics: float) -> TrainingStepCompleted:
    manifest = BatchManifest(
        sequence_ids=[], group_ids=list(groups), origins=[], positions={}, seed=0, settings_hash="x"
    )
    return TrainingStepCompleted.model_validate(
        s.ABOUT
        | {
            "event_id": derive("step", number),
            "policy": "p",
            "step": number,
            "version": version,
            "metrics": {name.replace("__", "/"): value for name, value in metrics.items()},
            "manifest": manifest,
        }
    )


def served(version: int, replica: str = "r") -> PolicyServed:
    return PolicyServed.model_validate(
        s.ABOUT
        | {
            "event_id": derive("served", version, replica),
            "policy": "p",
            "version": version,
            "replica": replica,
            "endpoint": "http://engine",
            "model": f"p@{version}",
            "engine": "vllm",
        }
    )


def versioned(version: int) -> list[Event]:
    about = s.ABOUT | {"policy": "p", "version": version}
    lineage = dict.fromkeys(
        ("base_model", "checkpoint_event", "manifest_event", "manifest_sha256", "weights_sha256", "settings_hash"), "x"
    )
    registered = about | {"event_id": derive("v", version), "lineage": {"parent_version": version - 1} | lineage}
    return [
        VersionRegistered.model_validate(registered),
        PolicyPromoted.model_validate(about | {"event_id": derive("promoted", version)}),
    ]


def held_out(n: int, reward: float, version: int = 3) -> list[Event]:
    """A validation rollout from its task to its rewards."""
    task_id = f"held-{n}"
    rollout_id = rollout_id_of(task_id, 0)
    call = s.call(f"call-{n}", rollout_id, [1], [2, 3], [s.ASK], s.ANSWER, policy_version=version)
    about: dict[str, Any] = {"group_id": task_id, "group_size": 1}
    given = s.outcome(rollout_id, reward)
    return [
        enqueued(task_id, 1, "validation"),
        s.started(rollout_id, task_id=task_id, **about),
        call,
        s.ended(rollout_id, [call.call_id], task=Task(task_id=task_id, mode="validation"), **about),
        s.settled(rollout_id, [call.call_id]),
        given,
        s.completed(rollout_id, [given]),
    ]


GROUP: list[Event] = [enqueued(s.GROUP, 2), *s.life(s.A, s.calls_of_a(), 1.0), *s.life(s.B, [s.call_of_b()], 0.0)]


def report_of(events: Sequence[Event], now: Any = NOW, lag: dict[str, int] | None = None) -> LoopReport:
    state = LoopState()
    for event in events:
        state.see(event)
    report = state.report(now, lag or {})
    seconds = [x for one in state.rollouts for a in one.attempts.values() if (x := a.seconds) is not None]
    return report.model_copy(update={"problems": problems(report, seconds)})


def said(report: LoopReport) -> str:
    return " | ".join(f"{one.what} → {one.do}" for one in report.problems)


def test_the_curve_has_the_held_out_tasks_first_by_version() -> None:
    events = [*GROUP, *held_out(0, 0.25, 3), *held_out(1, 0.75, 3), *held_out(2, 1.0, 12)]
    curve = report_of(events).curve
    assert [(p.mode, p.version, p.mean_reward, p.rollouts) for p in curve] == [
        ("validation", "p@3", 0.5, 2),
        ("validation", "p@12", 1.0, 1),
        ("train", "p@3", 0.5, 2),
    ]


@given(st.permutations([*GROUP, *s.credited(), *held_out(0, 0.5), *held_out(0, 0.5), step(1, 1), served(1)]))
def test_the_order_of_topics_and_redelivery_change_nothing(events: list[Event]) -> None:
    ordered = [*GROUP, *s.credited(), *held_out(0, 0.5), step(1, 1), served(1)]
    assert report_of(events) == report_of(ordered)


def test_a_group_says_what_its_members_wait_for() -> None:
    a, b = s.A, s.B
    c, d = rollout_id_of(s.GROUP, 2), rollout_id_of(s.GROUP, 3)
    failed = {"status": "failed", "final": False}
    events = [enqueued(s.GROUP, 4), *s.life(a, s.calls_of_a(), 1.0)[:-1], s.started(b), s.ended(c, [], **failed)]
    groups = report_of(events).groups
    assert groups.waiting == 1
    assert groups.waits_for == {"its rewards": 1, "the agent": 1, "a retry": 1, "a runner": 1}
    assert d not in json.dumps(groups.model_dump())
    assert report_of(GROUP).groups.waits_for == {"credit": 2}
    assert report_of([*GROUP, *s.credited()]).groups.waiting == 0


def test_a_credited_group_is_ready_until_a_batch_has_it() -> None:
    assert report_of([*GROUP, *s.credited()]).groups.ready == 1
    assert report_of([*GROUP, *s.credited(), step(1, 1, [s.GROUP])]).groups.ready == 0


def test_the_live_version_is_the_oldest_that_a_replica_serves() -> None:
    (policy,) = report_of([*versioned(1), *versioned(2), served(2, "a"), served(1, "b")]).policies
    assert (policy.newest, policy.promoted, policy.live, policy.replicas) == (2, 2, 1, 2)


def test_a_step_that_changed_nothing_made_no_version() -> None:
    report = report_of([step(1, 0, optimiser__skipped=1.0, reward__mean=0.5, groups__dropped__empty=2.0)])
    assert (report.steps[0].changed, report.steps[0].dropped) == (False, {"empty": 2})
    assert "no weight changed" in next(lines(StackView(), report))


def test_throughput_counts_the_last_minute_only() -> None:
    at = s.T0 + timedelta(seconds=30)
    speed = report_of(GROUP, at).throughput
    assert speed.rollouts_per_minute == 2
    assert speed.calls_per_minute == 3
    assert speed.tokens_per_second == pytest.approx(6 / 60)
    assert report_of(GROUP).throughput.rollouts_per_minute == 0


def failing(n: int, **changes: Any) -> list[Event]:
    rollout_id = rollout_id_of(f"task-{n}", 0)
    failure = Failure(failure_class=FailureClass.AGENT_EXCEPTION, message=f"KeyError: 'question' in row {n}")
    return [s.started(rollout_id), s.ended(rollout_id, [], status="failed", failure=failure, **changes)]


def unrewarded(n: int, **completed: Any) -> list[Event]:
    rollout_id = rollout_id_of(f"task-{n}", 0)
    call = s.call(f"c{n}", rollout_id, [1], [2], [s.ASK], s.ANSWER)
    own = [s.started(rollout_id), call, s.ended(rollout_id, [call.call_id]), s.settled(rollout_id, [call.call_id])]
    return [*own, s.completed(rollout_id, [], **completed)]


QUEUE = enqueued("waiting", 2)
CAUSES: dict[str, tuple[list[Event], str, str]] = {
    "nothing": ([], "There are no tasks", "leyden enqueue"),
    "no runner": ([QUEUE], "2 rollouts wait and no runner claims them", "leyden runner"),
    "paused": (
        [QUEUE, QueuePaused(**s.ABOUT, event_id="1")],
        "The whole queue is paused",
        "leyden resume",
    ),
    "hanging": ([QUEUE, s.started(rollout_id_of("waiting", 0))], "has run for 300 s", "leyden inspect"),
    "failing": (
        [e for n in range(4) for e in failing(n)],
        "4 of 4 rollouts failed; 4 times agent_exception: KeyError: 'question' in row",
        "leyden errors",
    ),
    "broken reward": (
        [e for n in range(4) for e in unrewarded(n, failed_rules=["my_rewards:score: KeyError: 'answer'"])],
        "A reward rule failed for 4 rollouts, which are not trained: my_rewards:score: KeyError: 'answer'",
        "leyden replay",
    ),
    "no reward": ([e for n in range(4) for e in unrewarded(n)], "No rollout has a reward", "reward.functions"),
    "no validation": (GROUP, "No validation rollouts", "--mode validation"),
    "no policy": (
        [e.model_copy(update={"policy": None}) if hasattr(e, "call_id") and hasattr(e, "policy") else e
         for n in range(4) for e in unrewarded(n)],
        "4 of 4 rollouts made no call that a policy answered", "`model`",
    ),
    "flat": (
        [*GROUP, *(s.group_end(2, group_id=f"g{n}", zero_variance=True) for n in range(4))],
        "In 4 of 4 groups all rollouts have the same reward", "samples",
    ),
    "single": (
        [*GROUP, *(s.group_end(1, group_id=f"g{n}", members=1, zero_variance=True) for n in range(4))],
        "4 of 4 groups have one rollout", "--samples 8",
    ),
    "empty": (
        [*GROUP, *(s.group_end(0, group_id=f"g{n}", left_out={f"r{n}": "no_reward"}) for n in range(4))],
        "4 of 4 groups have nothing to train: no_reward", "leyden inspect",
    ),
    "stale": ([*GROUP, step(5, 5, staleness__max=5.0, staleness__mean=3.5)], "up to 5 versions old", "max_staleness"),
    "not served": ([*GROUP, *versioned(2), served(1)], "Version 2 of p is promoted, but 1 still serves", "loaded"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_why_nothing_goes_on_and_what_to_do(cause: str) -> None:
    events, what, do = CAUSES[cause]
    text = said(report_of(events))
    assert what in text
    assert do in text


def slow(*trace_ids: str | None, seconds: float = 63.0) -> ModelWait:
    return model_wait([{"trace_id": one, "model": "p", "seconds": seconds - n} for n, one in enumerate(trace_ids)])


def test_a_slow_model_is_named_and_the_agent_that_waits_for_it_is_not_blamed() -> None:
    attempt = AttemptRef(rollout_id_of("waiting", 0), 0)
    state = LoopState()
    for event in [QUEUE, s.started(attempt.rollout_id)]:
        state.see(event)
    report = state.report(NOW, {}, model=slow(attempt.trace_id, None))
    told = problems(report, [])[0]
    waits = "2 model calls wait for an answer, the oldest for 63 s (model `p`)"
    assert told.what == f"The model is slow, not the agent: {waits}."
    assert "--timeout" in told.do
    assert not any("has run for" in one.what for one in problems(report, []))
    assert report.groups.waits_for["the model"] == 1
    quick = state.report(NOW, {}, model=slow(attempt.trace_id, seconds=3.0))
    assert any("has run for 300 s" in one.what for one in problems(quick, [])), "a call of 3 s explains nothing"


@pytest.mark.parametrize("waiting", [None, f"{rollout_id_of('other', 0)}0000"])
def test_the_long_call_of_another_does_not_hide_a_rollout_that_hangs(waiting: str | None) -> None:
    state = LoopState()
    for event in [QUEUE, s.started(rollout_id_of("waiting", 0))]:
        state.see(event)
    told = [one.what for one in problems(state.report(NOW, {}, model=slow(waiting, seconds=25.0)), [])]
    assert told[0].startswith("The model is slow: 1 model call waits")
    assert "A rollout has run for 300 s without an end" in told[1]


@given(st.lists(st.tuples(st.none() | st.sampled_from(["a", "b", "c"]), st.floats(1, 1000)), max_size=8))
def test_the_oldest_call_is_that_of_all_and_of_each_attempt(calls: list[tuple[str | None, float]]) -> None:
    found = model_wait([{"trace_id": trace_id, "model": "p", "seconds": seconds} for trace_id, seconds in calls])
    assert found.calls == len(calls)
    assert found.oldest_s == max((seconds for _, seconds in calls), default=0.0)
    for name, seconds in found.attempts.items():
        assert seconds == max(age for one, age in calls if one == name)


def test_failures_of_attempts_that_waited_for_the_model_are_not_the_agents() -> None:
    events: list[Event] = []
    for n in range(4):
        rollout_id = rollout_id_of(f"task-{n}", 0)
        evidence = FailureEvidence(unanswered_calls=1, waited_s=58.0)
        message = "the agent did not end in 60 s; 1 model call was still unanswered after 58 s"
        failure = Failure(failure_class=FailureClass.TIMEOUT, message=message, evidence=evidence)
        events += [s.started(rollout_id), s.ended(rollout_id, [], status="failed", failure=failure)]
    assert "The model was slow, not the agent" in said(report_of(events))


def test_a_stack_that_starts_says_what_it_does_and_not_that_there_are_no_tasks() -> None:
    state = StackState(phase="starting", doing="waiting for engine (loads the model) (12 s)")
    text = StringIO()
    view = WatchView(Console(file=text, width=80))
    view.show(StackView(state), None)
    later = "waiting for engine (loads the model) (14 s)"
    view.show(StackView(state.model_copy(update={"doing": later})), None)
    view.show(StackView(state.model_copy(update={"doing": "creating topics"})), None)
    view.close()
    assert text.getvalue().splitlines() == [
        "starting: waiting for engine (loads the model) (12 s)",
        "starting: creating topics",
    ]


def test_without_a_terminal_a_problem_whose_numbers_grow_is_printed_once() -> None:
    text = StringIO()
    view = WatchView(Console(file=text, width=80))
    for seconds in (100, 200, 300):
        events = [QUEUE, s.started(rollout_id_of("waiting", 0))]
        view.show(StackView(), report_of(events, s.T0 + timedelta(seconds=seconds)))
    view.close()
    assert text.getvalue().count("has run for") == 1


def test_without_a_terminal_a_problem_that_was_gone_is_printed_again() -> None:
    text = StringIO()
    view = WatchView(Console(file=text, width=80))
    hanging = report_of([QUEUE, s.started(rollout_id_of("waiting", 0))])
    well = report_of([*GROUP, *s.credited(), *held_out(0, 0.5), step(1, 1, [s.GROUP]), *versioned(1), served(1)])
    for report in (hanging, None, hanging, well, hanging, None):
        view.show(StackView(), report)
    view.close()
    assert text.getvalue().count("has run for") == 2
    assert text.getvalue().count("Kafka does not answer") == 2


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[DataFolder]:
    """A stack that starts: its lock is held."""
    folder = DataFolder(tmp_path)
    folder.claim()
    folder.config.write_text(StackConfig(data_dir=tmp_path).model_dump_json())
    folder.write_state(StackState(phase="starting", doing="waiting for engine"))
    descriptor = os.open(folder.lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield folder
    os.close(descriptor)


async def test_a_start_that_fails_ends_the_watch_with_its_error(
    starting: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    seen = reports(starting.root, None, lambda _: None, 0.0)
    assert (await anext(seen))[0].starting == "starting: waiting for engine"
    starting.write_state(StackState(phase="stopping"))
    assert (await anext(seen))[0].is_ending
    starting.write_state(StackState(phase="failed", error="The engine needs 3 GiB."))
    view, report = await anext(seen)
    assert report is None
    assert list(lines(view, report)) == ["The stack is failed: The engine needs 3 GiB."]
    with pytest.raises(StackError, match=r"^The engine needs 3 GiB\.$"):
        await anext(seen)
    assert not (starting.root / "kafka").exists()


async def test_the_log_of_another_kafka_is_watched_while_the_local_stack_starts(
    starting: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(_: Path) -> Never:
        raise StackError("the log was looked for")

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setattr("leyden.cli.watching.log_location", found)
    with pytest.raises(StackError, match="the log was looked for"):
        await anext(reports(starting.root, None, lambda _: None, 0.0))


LOCAL, ELSEWHERE = "http://127.0.0.1:8080", "http://elsewhere"


@pytest.mark.parametrize(
    ("kafka", "gateway", "prefix", "asked"),
    [
        (None, None, "live.", LOCAL),
        (None, LOCAL + "/", "live.", LOCAL),
        ("local:9092", None, "live.", LOCAL),
        (None, None, "again.", None),
        (None, ELSEWHERE, "live.", None),
        ("other:9092", None, "live.", None),
        ("other:9092", LOCAL, "live.", None),
        ("other:9092", ELSEWHERE, "live.", ELSEWHERE),
    ],
)
def test_only_the_gateway_that_writes_the_log_is_asked(
    starting: DataFolder,
    monkeypatch: pytest.MonkeyPatch,
    kafka: str | None,
    gateway: str | None,
    prefix: str,
    asked: str | None,
) -> None:
    monkeypatch.delenv("LEYDEN_API_KEY", raising=False)
    for name, value in (("KAFKA_BOOTSTRAP_SERVERS", kafka), ("LEYDEN_GATEWAY_URL", gateway)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    key = starting.secrets().api_key
    starting.write_state(StackState(phase="up", gateway_url=LOCAL, kafka_servers="local:9092"))
    location = LogLocation(KafkaSettings(bootstrap_servers=kafka or "local:9092"), "live.", "file:///claims")
    found = gateway_of_log(location, prefix, starting.root)
    assert (found.url if found else None) == asked
    if found is not None and gateway is None:
        assert found.api_key == key


def test_nothing_is_said_of_a_loop_that_goes_on() -> None:
    events = [*GROUP, *s.credited(), *held_out(0, 0.5), step(1, 1, [s.GROUP]), *versioned(1), served(1)]
    assert report_of(events).problems == []


def test_an_unfinished_batch_says_how_many_groups_are_missing() -> None:
    state = LoopState()
    for event in [*GROUP, *s.credited()]:
        state.see(event)
    report = state.report(NOW, {}, per_step=8)
    assert "has 1 of the 8 groups of a step" in problems(report, [])[-1].what


def test_a_resumed_queue_is_not_paused_in_whatever_order_it_is_read() -> None:
    paused = QueuePaused(**s.ABOUT, event_id="1")
    later = s.ABOUT | {"event_time": s.T0 + timedelta(seconds=1)}
    resumed = QueueResumed(**later, event_id="2")
    for events in ([paused, resumed], [resumed, paused]):
        assert report_of([QUEUE, *events]).queue.paused == []


def test_without_a_terminal_each_step_is_one_line_and_nothing_is_said_twice() -> None:
    text = StringIO()
    view = WatchView(Console(file=text, width=80))
    events: list[Event] = [*GROUP, step(1, 1, reward__mean=0.5)]
    for _ in range(3):
        view.show(StackView(), report_of(events))
    view.show(StackView(), report_of([*events, step(2, 2, reward__mean=0.75), *held_out(0, 0.5)]))
    view.close()
    printed = text.getvalue().splitlines()
    assert [line.split(",")[1] for line in printed if line.startswith("step")] == [" reward 0.500", " reward 0.750"]
    assert [line for line in printed if line.startswith("held out")] == ["held out p@3: reward 0.500 over 1 rollouts"]
    assert len(printed) == len(set(printed))


def test_the_screen_fits_80_columns_and_cuts_no_id() -> None:
    text = StringIO()
    hanging = rollout_id_of("waiting", 0)
    events = [*GROUP, QUEUE, s.started(hanging), *held_out(0, 0.5), step(1, 1, reward__mean=0.5)]
    Console(file=text, width=80).print(screen(StackView(), report_of(events)))
    shown = text.getvalue()
    assert f"{hanging}0000" in shown.replace("\n", "").replace(" ", "")
    assert "…" not in shown
    assert shown.index("held-out") < shown.index("training tasks") < shown.index("\nsteps")


def test_json_has_the_whole_report() -> None:
    document = json.loads(as_json(StackView(), report_of([*GROUP, *held_out(0, 0.5)], lag={"reward": 7})))
    assert document["lag"] == {"reward": 7}
    assert document["curve"][0]["mode"] == "validation"
    assert document["queue"]["succeeded"] == 3
    assert document["processes"] == []


async def test_a_follower_reads_each_record_once() -> None:
    log: Any = s.FakeLog(GROUP)
    follower = Follower(log, WATCHED)
    first = [one.event.event_id async for one in follower.poll()]
    assert sorted(first) == sorted(event.event_id for event in GROUP)
    assert [one async for one in follower.poll()] == []
    log.add(step(1, 1))
    assert [one.event.event_id async for one in follower.poll()] == [step(1, 1).event_id]


def test_a_rollout_that_is_tried_again_shows_its_newest_attempt() -> None:
    state = LoopState()
    retried = s.ended(s.A, [], status="failed", final=False)
    for event in (retried, s.started(s.A, attempt=1)):
        state.see(event)
    (rollout,) = state.rollouts
    assert (rollout.status, rollout.attempt, rollout.trace_id) == (RolloutStatus.RUNNING, 1, f"{s.A}0001")
