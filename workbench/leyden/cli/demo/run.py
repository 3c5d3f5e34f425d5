"""Runs the demo: a new stack, the agent's runner beside it, tasks for each update, a report."""

import asyncio
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from rich.console import Console

from leyden.cli.demo.gateway import GatewayClient
from leyden.cli.demo.plan import DemoPlan
from leyden.cli.demo.report import write_report
from leyden.cli.demo.state import DemoState
from leyden.cli.demo.view import View
from leyden.cli.demo.watch import ProcessWatch
from leyden.cli.progress import Progress
from leyden.events.codec import MODEL_CALLS, ROLLOUTS, TRAINING_METRICS, TRANSITIONS
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import TopicTail
from leyden.kafka.types import KafkaError
from leyden.reading.location import claims_url_of
from leyden.reading.stages import lag_of_stages
from leyden.stack.config import Ports, StackConfig
from leyden.stack.daemon import reset
from leyden.stack.errors import StackError
from leyden.stack.processes import ProcessSpec, Supervisor
from leyden.stack.requirements import own_kafka
from leyden.stack.stack import Stack

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "calculator"
POLICY = "policy"
WATCHED = (ROLLOUTS, TRANSITIONS, TRAINING_METRICS, MODEL_CALLS)
SETTLE_S = 120.0
"""Time limit for the last version to go live after the last update."""


def run_demo(plan: DemoPlan, console: Console) -> int:
    """Run the demo and write its report. Returns the exit status: 0 if it finished and, where required, learned."""
    if not EXAMPLE.is_dir():
        raise StackError(f"The demo's agent, {EXAMPLE}, is missing. Run the demo from a clone of the repository.")
    reset(plan.data_dir)
    config = _config(plan)
    state = DemoState(plan.updates, plan.tasks * plan.samples)
    progress = Progress(console)
    stack = Stack(config, progress)
    with stack:
        progress.close()
        timings = dict(stack.status().timings_s)
        state.began = time.monotonic()
        with _agent(stack, plan) as agent:
            asyncio.run(_drive(plan, stack, agent, state, console))
        timings["loop"] = state.elapsed_s
    return write_report(plan, state, timings, console)


def _config(plan: DemoPlan) -> StackConfig:
    run_file = plan.data_dir.resolve() / "run" / "run.yaml"
    chosen = yaml.safe_load((EXAMPLE / "run.yaml").read_text())
    changed = {"groups_per_step": plan.tasks, "seed": plan.seed, "max_steps": plan.updates}
    chosen["trainer"] |= changed | ({"advantage_scale": 0.0} if plan.control else {})
    run_file.parent.mkdir(parents=True, exist_ok=True)
    run_file.write_text(yaml.safe_dump(chosen, sort_keys=False))
    shutil.copytree(
        EXAMPLE / "calculator", run_file.parent / "calculator", ignore=shutil.ignore_patterns("__pycache__")
    )
    # On an external broker the topics of earlier runs remain, so each run gets its own prefix.
    prefix = "" if own_kafka() else f"demo-{int(time.time())}."
    return StackConfig(
        data_dir=plan.data_dir,
        model=plan.model,
        engine=plan.engine,  # type: ignore[arg-type]
        policy=POLICY,
        run_file=run_file,
        topic_prefix=prefix,
        ports=Ports.auto() if plan.auto_ports else Ports(),
    )


@contextmanager
def _agent(stack: Stack, plan: DemoPlan) -> Iterator[Supervisor]:
    """Run the agent's runner in its own process, with the gateway's URL and a key."""
    env = stack.env | {"LEYDEN_GATEWAY_URL": stack.gateway_url, "LEYDEN_API_KEY": stack.api_key}
    concurrency = str(plan.tasks * plan.samples)
    command = (sys.executable, "-m", "leyden.cli", "runner", "calculator.rollout:run", "--concurrency", concurrency)
    with Supervisor(f"{stack.folder.stack_id}-agent", stack.folder.logs) as supervisor:
        supervisor.start(ProcessSpec(name="agent", argv=command, env=env))
        yield supervisor


async def _drive(plan: DemoPlan, stack: Stack, agent: Supervisor, state: DemoState, console: Console) -> None:
    """Enqueue the tasks of the next update when the last update's version is live, until all updates are made."""
    gateway = GatewayClient(stack.gateway_url, stack.api_key)
    settings = KafkaSettings(bootstrap_servers=stack.kafka_servers)
    claims = ClaimStore(claims_url_of(stack.config))
    view = View(console)
    watch = ProcessWatch((stack, agent), state, view)
    try:
        async with TopicTail(settings, claims, stack.config.topic_prefix, WATCHED) as tail:
            state.phase = "learning" if not plan.control else "control: advantages are zero"
            watching = asyncio.create_task(_watch_lag(settings, stack, state))
            try:
                await _feed(plan, stack, state, gateway, tail, view, watch)
            finally:
                watching.cancel()
            state.phase = "done"
            view.show(state)
    finally:
        view.close()
        await gateway.close()


async def _feed(
    plan: DemoPlan,
    stack: Stack,
    state: DemoState,
    gateway: GatewayClient,
    tail: TopicTail,
    view: View,
    watch: ProcessWatch,
) -> None:
    enqueued, deadline = 0, float("inf")
    while not (len(state.steps) == plan.updates and state.is_current and _complete(plan, state)):
        watch.check()
        for event in await tail.poll(0.4):
            state.see(event)
        try:
            state.see_version(await gateway.live_version(POLICY))
            state.queue = await gateway.queue()
            if enqueued < plan.updates and len(state.steps) == enqueued and state.is_current:
                await gateway.enqueue(_tasks(plan, enqueued))
                enqueued += 1
        except httpx.HTTPError as error:
            state.note(f"the gateway does not answer ({type(error).__name__})")
            await asyncio.sleep(0.5)
        view.show(state)
        if len(state.steps) == plan.updates:
            deadline = min(deadline, time.monotonic() + SETTLE_S)
        if time.monotonic() > deadline:
            raise StackError(
                f"Version {state.trained_version} did not go live within {SETTLE_S:.0f} s of the last update. "
                f"The logs of registry and policy in {stack.folder.logs} say why."
            )


def _complete(plan: DemoPlan, state: DemoState) -> bool:
    groups = plan.updates * plan.tasks
    return len(state.groups) == groups and state.finished_rollouts == groups * plan.samples


def _tasks(plan: DemoPlan, update: int) -> list[dict[str, object]]:
    """The tasks of one update, from the example; the same seed gives the same tasks."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    from calculator.tasks import generate  # type: ignore[import-not-found]

    made = generate(plan.tasks, seed=plan.seed * 10_000 + update)
    return [
        {"task_id": f"calculator-{plan.seed}-{update}-{index}", "samples": plan.samples, **task}
        for index, task in enumerate(made)
    ]


async def _watch_lag(settings: KafkaSettings, stack: Stack, state: DemoState) -> None:
    while True:
        try:
            state.lag = await lag_of_stages(settings, stack.config.topic_prefix)
        except KafkaError as error:  # it is shown by the process watch; the lag is measured again when Kafka is back
            state.note(f"Kafka does not answer ({type(error).__name__})")
        await asyncio.sleep(2.0)
