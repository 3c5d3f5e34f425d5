"""The experiment as a whole: a learning rate chosen for the identical arm, then every arm with it, on three seeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

from binary_search.experiment import Arm, Curve, Plan, episodes_to, run
from binary_search.game import POINTLESS

IDENTICAL = Arm("identical", {"strategy": "identical"})
STEP = Arm("step", {"strategy": "step"})
STEP_GROUP = Arm("step_group", {"strategy": "step_group"})
GAE = Arm("gae", {"strategy": "gae"})
CONTROL = Arm("control", {"strategy": "step"}, advantage_scale=0.0)
Conditions = Mapping[float, Sequence[Arm]]
"""Reward of a pointless guess → arms."""
CONDITIONS: Conditions = {POINTLESS: (IDENTICAL, STEP, CONTROL)}
ALL_CONDITIONS: Conditions = {
    POINTLESS: (IDENTICAL, STEP, STEP_GROUP, GAE, CONTROL),
    -0.2: (IDENTICAL, STEP, STEP_GROUP, GAE, CONTROL),
}
"""The other strategies too, and a weaker reward: the less falls on single guesses, the less there is to win."""
SEEDS = (0, 1, 2)
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
GRID_SEED = 100
"""Not one of `SEEDS`: the learning rate is not chosen on what is reported."""
GRID = Plan(max_steps=200, stop_at_goal=False)
FULL = Plan()
CONTROL_STEPS = 160
"""Enough to see that nothing moves."""


@dataclass(frozen=True)
class Job:
    """One run of the experiment."""

    arm: Arm
    seed: int
    plan: Plan


@dataclass(frozen=True)
class Study:
    """What was run: the grids on the identical arm, and every arm's runs with the learning rate that they chose."""

    grid: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    parameters: int
    seconds: float


def study(processes: int, progress: Callable[[str], None], conditions: Conditions = CONDITIONS) -> Study:
    """Run everything; only `seconds` depends on the machine, the rest on the seeds."""
    started = time.perf_counter()
    plans = [replace(GRID, pointless=reward, learning_rate=rate) for reward in conditions for rate in LEARNING_RATES]
    grid = _run_all([Job(IDENTICAL, GRID_SEED, plan) for plan in plans], processes, progress)
    best = {
        reward: max((one for one in grid if one[0].plan.pointless == reward), key=lambda one: score(one[1]))[0].plan
        for reward in conditions
    }
    jobs = [
        Job(arm, seed, _plan(arm, reward, best[reward].learning_rate))
        for reward, arms in conditions.items()
        for seed in SEEDS
        for arm in arms
    ]
    runs = _run_all(jobs, processes, progress)
    return Study(
        grid=[_told(job) | {"score": score(curve)} for job, curve in grid],
        runs=[
            _told(job)
            | {"episodes_to_goal": episodes_to(curve), "recurrence": curve.recurrence}
            | {"points": [asdict(point) for point in curve.points]}
            for job, curve in runs
        ],
        parameters=runs[0][1].parameters,
        seconds=round(time.perf_counter() - started, 1),
    )


def _plan(arm: Arm, reward: float, rate: float) -> Plan:
    steps = min(FULL.max_steps, CONTROL_STEPS) if arm == CONTROL else FULL.max_steps
    return replace(FULL, pointless=reward, learning_rate=rate, max_steps=steps)


def _told(job: Job) -> dict[str, Any]:
    return {"arm": job.arm.name, "credit": job.arm.credit, "seed": job.seed} | asdict(job.plan)


def score(curve: Curve) -> float:
    """Mean success over the last five evaluations."""
    last = curve.points[-5:]
    return round(sum(point.sampled for point in last) / len(last), 4)


def _run_all(jobs: Sequence[Job], processes: int, progress: Callable[[str], None]) -> list[tuple[Job, Curve]]:
    """Every job with its curve, in the order of `jobs`."""
    found: dict[int, Curve] = {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job.arm, job.seed, job.plan): number for number, job in enumerate(jobs)}
        for done in as_completed(running):
            number = running[done]
            found[number] = done.result()
            progress(_line(jobs[number], found[number]))
    return [(job, found[number]) for number, job in enumerate(jobs)]


def _line(job: Job, curve: Curve) -> str:
    reached = episodes_to(curve)
    return (
        f"{job.arm.name:<11} pointless {job.plan.pointless:g} seed {job.seed:<3} rate {job.plan.learning_rate:g}: "
        f"{curve.points[-1].sampled:.3f} after {curve.points[-1].episodes} episodes, "
        f"90 % {'not reached' if reached is None else f'after {reached}'}"
    )
