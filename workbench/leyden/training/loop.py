"""The loop of a training on a running stack: reads the log, decides, enqueues, until all updates are made."""

import asyncio
import time
from pathlib import Path

import httpx

from leyden.events.codec import (
    CHECKPOINTS,
    REWARDS,
    ROLLOUTS,
    TASKS,
    TRAINING_BATCHES,
    TRAINING_METRICS,
    TRANSITIONS,
)
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import TopicTail
from leyden.kafka.types import KafkaError
from leyden.reading.location import claims_url_of
from leyden.reading.model_wait import model_wait
from leyden.reading.stages import lag_of_stages
from leyden.stack.errors import StackError
from leyden.training.best import keep_best
from leyden.training.gateway import GatewayClient, failure_text
from leyden.training.plan import TrainPlan
from leyden.training.problems import causes, problems
from leyden.training.results import Training
from leyden.training.schedule import Action, Evaluate, Finish, Sample, Wait, decide
from leyden.training.stacks import RunningStack
from leyden.training.state import TrainState
from leyden.training.view import View
from leyden.training.watch import ProcessWatch, Supervised

READ = (TASKS, ROLLOUTS, REWARDS, TRANSITIONS, TRAINING_BATCHES, TRAINING_METRICS, CHECKPOINTS)
SETTLE_S = 120.0
"""Time limit for a version to go live after its update."""
FRUITLESS = 3
"""After so many times the tasks of an update without anything to learn, the training ends."""


class Loop:
    """One run of a training. Stopping it at any moment loses nothing: the log has what the next run needs."""

    def __init__(self, plan: TrainPlan, stack: RunningStack, agent: Supervised, state: TrainState, view: View) -> None:
        self._plan, self._stack, self._state, self._view = plan, stack, state, view
        self._kafka = KafkaSettings(bootstrap_servers=stack.kafka_servers)
        self._prefix = stack.config.topic_prefix
        self._watch = ProcessWatch((stack, agent), state, view)
        self._gateway = GatewayClient(stack.gateway_url, stack.api_key)
        self._waits_since: tuple[str, float] = ("", 0.0)
        self._solved = False

    async def run(self) -> None:
        """Run until the schedule is finished. Raises StackError if it cannot go on."""
        claims = ClaimStore(claims_url_of(self._stack.config))
        try:
            async with TopicTail(self._kafka, claims, self._prefix, READ) as tail:
                await self._catch_up(tail)
                lag = asyncio.create_task(self._watch_lag())
                try:
                    while not await self._turn(tail):
                        pass
                finally:
                    lag.cancel()
        finally:
            await self._gateway.close()

    async def _catch_up(self, tail: TopicTail) -> None:
        """Read what is in the log: an earlier run of this training, if any."""
        quiet = 0
        while quiet < 2:
            events = await tail.poll(0.4)
            quiet = 0 if events else quiet + 1
            for event in events:
                self._state.see(event)
        self._state.repeat_failed_evaluation()

    async def _turn(self, tail: TopicTail) -> bool:
        """One look at the log and the gateway, and what follows. True when all is done."""
        self._watch.check()
        for event in await tail.poll(0.4):
            self._state.see(event)
        action: Action = Wait("the gateway")
        try:
            await look(self._gateway, self._state)
            action = decide(self._plan.schedule, self._state.standing)
            await self._do(action)
        except httpx.HTTPError as error:
            self._state.note(failure_text(error))
            await asyncio.sleep(0.5)
        self._state.phase = phase_of(action)
        self._view.show(self._state)
        keep_best(self._state, best_folder(self._plan))
        return isinstance(action, Finish) or self._solved or self._is_solved()

    async def _do(self, action: Action) -> None:
        state, tasks = self._state, self._plan.tasks
        match action:
            case Evaluate(version):
                fields = self._plan.task_fields | {"samples": self._plan.held_out_samples}
                again = state.to_evaluate(version)
                await self._enqueue([task | fields for task in tasks.evaluation(version, again)])
            case Sample(update, _) if self._is_fruitless(update):
                self._solved = True
            case Sample(update, count):
                fields = self._plan.task_fields | {"samples": self._plan.samples}
                await self._enqueue([task | fields for task in tasks.sampled(update, state.sampled, count)])
            case Wait(reason):
                self._check_time(reason)

    async def _enqueue(self, tasks: list[dict[str, object]]) -> None:
        for enqueued in await self._gateway.enqueue(tasks):
            self._state.see_enqueued(enqueued.task_id, enqueued.group_id, enqueued.rollout_ids)

    def _is_fruitless(self, update: int) -> bool:
        """Whether the tasks sampled for `update` gave nothing to train, again and again.

        Raises StackError if no update before it did, as then something is wrong.
        """
        sampled = self._state.standing.sampled.get(update, 0)
        if sampled < FRUITLESS * self._plan.schedule.groups_per_step:
            return False
        told = f"The {sampled} tasks of update {update} gave nothing to train:"
        if self._state.trained_version == 0:
            raise StackError("\n".join([told, *self._reasons()]))
        self._view.warn(f"ended before update {update}: {sampled} tasks gave nothing to train; {self._reasons()[0]}")
        return True

    def _reasons(self) -> list[str]:
        """Why nothing is learned."""
        same = "all rollouts of each task had the same reward; use easier or harder tasks, or a finer reward"
        return causes(self._state) or [same]

    def _is_solved(self) -> bool:
        """Whether the last updates had nothing to learn. Raises StackError if none ever had."""
        last = self._state.updates[-FRUITLESS:]
        if not self._plan.ends_early or len(last) < FRUITLESS or any(one.learned for one in last):
            return False
        told = self._reasons()
        if self._state.trained_version == 0:
            raise StackError("\n".join([f"The first {FRUITLESS} updates had nothing to learn:", *told]))
        self._state.note(f"ended after update {last[-1].number}: {FRUITLESS} updates had nothing to learn")
        return True

    def _check_time(self, reason: str) -> None:
        """Raise StackError if a trained version does not go live."""
        known, since = self._waits_since
        if reason != known:
            self._waits_since = reason, time.monotonic()
        elif "live" in reason and time.monotonic() - since > SETTLE_S and self._state.steps:
            raise StackError(
                f"Version {self._state.trained_version} did not go live within {SETTLE_S:.0f} s of its update. "
                f"The logs of registry and policy in {self._stack.folder.logs} say why."
            )

    async def _watch_lag(self) -> None:
        while True:
            try:
                self._state.lag = await lag_of_stages(self._kafka, self._prefix)
            except KafkaError as error:  # shown, and measured again when Kafka is back
                self._state.note(f"Kafka does not answer ({type(error).__name__})")
            await asyncio.sleep(2.0)


async def look(gateway: GatewayClient, state: TrainState) -> None:
    """Note what the gateway says: the live version, the queue, and the calls that wait for the model.

    Raises `httpx.HTTPError`, but not for the calls, which are only shown.
    """
    state.see_version(await gateway.live_version(state.policy))
    state.queue = await gateway.queue()
    try:
        state.model = await gateway.model_wait()
    except httpx.HTTPError as error:
        state.model = model_wait([])
        state.note_once(f"calls that wait for the model are not shown: {failure_text(error)}")


def phase_of(action: Action) -> str:
    """What happens now, in words."""
    match action:
        case Evaluate(version):
            return f"evaluating version {version}"
        case Sample(update, _):
            return f"sampling for update {update}"
        case Wait(reason):
            return f"waiting for {reason}"
        case Finish():
            return "done"


def best_folder(plan: TrainPlan) -> Path:
    """The folder for the best version's weights."""
    return plan.stack.data_dir.resolve() / "best"


def result_of(plan: TrainPlan, state: TrainState) -> Training:
    """The result so far."""
    best = keep_best(state, best_folder(plan))
    return Training(
        updates=tuple(state.updates),
        held_out=tuple(state.held_out),
        best=best,
        problems=tuple(problems(state).values()),
        data_dir=plan.stack.data_dir.resolve(),
    )
