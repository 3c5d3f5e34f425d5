"""Reads the state of the loop for `leyden watch` and `leyden status`: once, or again and again."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from leyden.analysis.advice import problems
from leyden.analysis.loop import WATCHED, LoopState
from leyden.analysis.loop_report import LoopReport, Problem
from leyden.events.codec import TRANSITIONS
from leyden.kafka.types import KafkaError
from leyden.reading import Log, log_location
from leyden.reading.follow import Follower
from leyden.reading.location import LogLocation
from leyden.reading.log import Tell
from leyden.reading.model_wait import ModelWait, read_model_wait
from leyden.reading.stages import lag_of_stages
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.health import UP, ProcessHealth, health_of
from leyden.stack.program import as_typed
from leyden.stack.state import DataFolder, StackState

GROUP_END = b'"group-credited"'


@dataclass(frozen=True)
class StackView:
    """The processes of a local stack; of a log without one, nothing."""

    state: StackState | None = None
    processes: list[ProcessHealth] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """`up`, or what is not up."""
        if self.state is None:
            return ""
        bad = [one for one in self.processes if one.state != UP]
        if self.state.phase != "up" or not bad:
            return self.state.phase
        return "not all up: " + ", ".join(f"{one.name} is {one.state}" for one in bad)

    @property
    def starting(self) -> str:
        """What a stack that is starting does now; empty for any other."""
        return f"starting: {self.state.doing or '…'}" if self.state and self.state.phase == "starting" else ""

    @property
    def is_ending(self) -> bool:
        """Whether the stack is being stopped."""
        return self.state is not None and self.state.phase == "stopping"

    @property
    def has_ended(self) -> bool:
        """Whether the stack was stopped, or has failed."""
        return self.state is not None and self.state.phase in ("down", "failed")

    def is_up(self, name: str) -> bool:
        """Whether the process is up; a stack that uses a Kafka or Redis of others has no process of that name."""
        return all(one.state == UP for one in self.processes if one.name == name)

    def problems(self) -> list[Problem]:
        """What does not run, and what to do."""
        if self.state is None:
            return []
        if self.has_ended:
            why = f": {self.state.error.rstrip('.')}" if self.state.error else ""
            what = f"The stack is {self.state.phase}{why}."
            return [Problem(what=what, do=f"`{as_typed()} up`")]
        return [
            Problem(what=f"{one.name} is {one.state}: {one.why}.", do=f"Look at {one.log}")
            for one in self.processes
            if one.state != UP
        ]


def view_of(data_dir: Path) -> StackView:
    """The processes of the stack in `data_dir`."""
    folder = DataFolder(data_dir)
    if not folder.config.exists():
        return StackView()
    state = folder.read_state()
    return StackView(state, health_of(folder, state) if state.is_running else [])


def groups_per_step(data_dir: Path) -> int | None:
    """The run file's `trainer.groups_per_step`; None if it does not say."""
    folder = DataFolder(data_dir)
    if not folder.config.exists():
        return None
    run_file = StackConfig.model_validate_json(folder.config.read_text()).run_file
    try:
        document = yaml.safe_load(run_file.read_text()) if run_file else {}
    except (OSError, yaml.YAMLError):
        return None
    section = document.get("trainer") if isinstance(document, dict) else None
    found = section.get("groups_per_step") if isinstance(section, dict) else None
    return found if isinstance(found, int) else None


class LoopWatch:
    """Follows the log of one loop. `look` may be called often: it reads only what is new."""

    def __init__(self, log: Log, location: LogLocation, per_step: int | None = None) -> None:
        self.state = LoopState()
        self._log, self._location, self._per_step = log, location, per_step
        self._follower = Follower(log, WATCHED, {TRANSITIONS: lambda _, value: GROUP_END in value})

    async def catch_up(self) -> None:
        """Read what is new. Raises `KafkaError`."""
        async for one in self._follower.poll():
            self.state.see(one.event)

    async def look(self, now: datetime, model: ModelWait | None = None) -> LoopReport:
        """The report at `now`, with the calls that wait for the `model`. Raises `KafkaError`."""
        await self.catch_up()
        lag = await lag_of_stages(self._location.kafka, self._log.prefix)
        report = self.state.report(now, lag, self._per_step, model)
        attempts = (attempt for one in self.state.rollouts for attempt in one.attempts.values())
        seconds = [seconds for attempt in attempts if (seconds := attempt.seconds) is not None]
        return report.model_copy(update={"problems": problems(report, seconds, as_typed())})


async def reports(
    data_dir: Path, prefix: str | None, tell: Tell, every_s: float | None
) -> AsyncIterator[tuple[StackView, LoopReport | None]]:
    """A report every `every_s` seconds, None while the stack starts or Kafka does not answer; one only if `every_s` is
    None.

    Raises StackError if there is no log, or the start of the stack that writes it fails. The log of
    KAFKA_BOOTSTRAP_SERVERS is read whatever the local stack does.
    """
    waited = False
    while not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        view = await asyncio.to_thread(view_of, data_dir)
        if not (view.starting or (waited and view.is_ending)):
            break
        yield view, None
        if every_s is None:
            return
        waited = True
        await asyncio.sleep(every_s)
    if waited and view.state is not None and view.has_ended:
        yield view, None
        raise StackError(view.state.error or "The stack was stopped while it started.")
    with log_location(data_dir) as location:
        async with Log(location, prefix, tell) as log:
            watch = LoopWatch(log, location, groups_per_step(data_dir))
            while True:
                view = await asyncio.to_thread(view_of, data_dir)
                model = await asyncio.to_thread(read_model_wait, location, log.prefix, data_dir)
                try:
                    yield view, await watch.look(datetime.now(UTC), model)
                except (KafkaError, OSError) as error:
                    if every_s is None:
                        raise StackError(f"Kafka does not answer: {error}") from error
                    yield view, None
                if every_s is None:
                    return
                await asyncio.sleep(every_s)
