"""What was acknowledged before an end counts, however far behind ingest and reward are, and whatever the clock says."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event, RolloutSettled, SpanRecorded
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.rules import Emitted
from service.reward.reward_fakes import NOW, World, delivered, sweeper_of
from unit.reward.reward_builders import a_call, a_score, a_span, an_end

CALLS = [a_call(1, 1), a_call(2, 3)]
SPANS = [a_span(1, 2), a_span(2, 4), a_score(4, 0.75)]
UNCOUNTED = an_end(CALLS, span_count=None)
STEPS = ("accept", "ingest", "read", "sweep", "wait", "restart")


class Line:
    """Requests with spans in Kafka, ingest, and reward behind it, each as far as it has come. A `LogReading`."""

    def __init__(self) -> None:
        self.world = World(Rulebook((Emitted(),), 0.25))
        self.requests: list[Event] = []
        self.log: list[Event] = []
        self.ingested = self.read = 0
        self._goals: tuple[int, int] = (0, 0)
        self._has_ingested = False
        self.restart()

    def restart(self) -> None:
        self.sweeper = sweeper_of(self.world.handlers, self.world.waiting, self, self.world.clock)  # type: ignore[arg-type]

    async def begin(self) -> None:
        self._goals, self._has_ingested = (len(self.requests), 0), False

    async def done(self) -> bool:
        if not self._has_ingested:
            if self.ingested < self._goals[0]:
                return False
            self._goals, self._has_ingested = (self._goals[0], len(self.log)), True
        return self.read >= self._goals[1]

    def ingest(self, count: int = 1) -> None:
        taken = self.requests[self.ingested : self.ingested + count]
        self.ingested += len(taken)
        self.log += taken

    async def consume(self, count: int = 1) -> None:
        taken = self.log[self.read : self.read + count]
        if taken:
            await self.world.handlers.on_batch([delivered(event, self.read + n) for n, event in enumerate(taken)])
        self.read += len(taken)

    def settled(self) -> list[RolloutSettled]:
        return [event for event in self.world.log.on("rollouts.v1") if isinstance(event, RolloutSettled)]


def span_ids(events: list[SpanRecorded]) -> list[str]:
    return sorted(event.event_id for event in events)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(STEPS), max_size=40),
    st.integers(0, len(SPANS)),
    st.booleans(),
    st.integers(-100_000, 100_000),
)
async def test_whatever_was_acknowledged_before_the_end_counts(
    steps: list[str], acknowledged: int, is_counted: bool, skew_s: int
) -> None:
    """In any order of steps, with a gateway whose clock is up to a day off."""
    line = Line()
    line.requests += SPANS[:acknowledged]
    skewed = {"event_time": UNCOUNTED.event_time + timedelta(seconds=skew_s)}
    end = UNCOUNTED.model_copy(update=skewed | {"span_count": acknowledged if is_counted else None})
    line.log += [*CALLS, end]
    late = SPANS[acknowledged:]
    for step in steps:
        match step:
            case "accept" if late:
                line.requests.append(late.pop(0))
            case "ingest":
                line.ingest()
            case "read":
                await line.consume()
            case "sweep":
                await line.sweeper.sweep()
            case "wait":
                line.world.clock.set(line.world.clock.now() + timedelta(hours=1))
            case "restart":
                line.restart()
    line.ingest(10)
    await line.consume(10)
    for _ in range(4):
        await line.sweeper.sweep()
        line.world.clock.set(line.world.clock.now() + timedelta(seconds=31))
    settled = line.settled()[0]
    assert settled.complete, settled.missing
    assert set(settled.span_ids) >= set(span_ids(SPANS[:acknowledged]))


async def test_a_rollout_without_a_count_waits_for_ingest_and_no_longer() -> None:
    line = Line()
    line.requests += SPANS
    line.log += [*CALLS, UNCOUNTED]
    await line.consume(3)
    for _ in range(3):
        await line.sweeper.sweep()
        line.world.clock.set(line.world.clock.now() + timedelta(hours=1))
    assert line.settled() == []
    line.ingest(3)
    await line.sweeper.sweep()
    assert line.settled() == [], "the spans are in the log, and reward has not read them"
    await line.consume(3)
    await line.sweeper.sweep()
    [settled] = line.settled()
    assert (settled.complete, settled.span_ids) == (True, span_ids(SPANS))


@pytest.mark.parametrize("away_s", [31, 3_600, 1_000_000])
async def test_spans_in_an_ingest_that_stands_still_are_not_given_up(away_s: int) -> None:
    line = Line()
    line.requests += SPANS
    line.ingest(1)
    line.log += [*CALLS, an_end(CALLS, span_count=3)]
    await line.consume(4)
    for _ in range(5):
        await line.sweeper.sweep()
        line.world.clock.set(line.world.clock.now() + timedelta(seconds=away_s))
    assert line.settled() == []
    line.ingest(2)
    await line.consume(2)
    await line.sweeper.sweep()
    [settled] = line.settled()
    assert (settled.complete, settled.missing) == (True, [])


async def test_spans_that_nobody_sent_are_given_up_after_the_grace_period() -> None:
    line = Line()
    line.requests += SPANS[:2]
    line.log += [*CALLS, an_end(CALLS, span_count=3)]
    line.ingest(2)
    await line.consume(5)
    await line.sweeper.sweep()
    line.world.clock.set(NOW + timedelta(seconds=29))
    await line.sweeper.sweep()
    assert line.settled() == []
    line.world.clock.set(NOW + timedelta(seconds=30))
    await line.sweeper.sweep()
    [settled] = line.settled()
    assert (settled.complete, settled.missing) == (False, ["spans:1"])


async def test_other_peoples_late_spans_hold_nobody_up() -> None:
    """A reading ends at what was there when it began, so that steady traffic does not keep it from ending."""
    line = Line()
    line.log += [*CALLS, UNCOUNTED]
    await line.consume(3)
    line.requests.append(SPANS[0])
    await line.sweeper.sweep()
    line.requests.append(SPANS[1])
    line.ingest(1)
    await line.consume(1)
    await line.sweeper.sweep()
    assert len(line.settled()) == 1
