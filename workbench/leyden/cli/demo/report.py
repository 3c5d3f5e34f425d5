"""The demo's result: a summary on the screen, `results.json`, and the reward curve as a PNG."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from leyden.cli.demo.plan import DemoPlan
from leyden.stack.program import as_typed
from leyden.training.results import Training
from leyden.training.state import TrainState

MIN_RISE = 0.1
"""Required difference between the mean rewards of the last and the first third of the updates."""


def write_report(
    plan: DemoPlan, training: Training, state: TrainState, timings: dict[str, float], console: Console
) -> int:
    """Write the files and print the summary. Returns 1 if learning is required and the reward did not rise, else 0."""
    results = _results(plan, training, state, timings)
    folder = plan.data_dir.resolve()
    (folder / "results.json").write_text(json.dumps(results, indent=2))
    draw_curves(folder / "reward.png", [("control" if plan.control else "Leyden", training.rewards)])
    first, last = training.learned()
    _print_summary(console, results, folder)
    if plan.require_learning and last < first + MIN_RISE:
        console.print(
            f"[bold red]the reward did not rise:[/] {first:.3f} → {last:.3f}, required: +{MIN_RISE}. "
            "Another --seed may learn; look at the rollouts with `inspect` if none does."
        )
        return 1
    return 0


def _results(plan: DemoPlan, training: Training, state: TrainState, timings: dict[str, float]) -> dict[str, Any]:
    first, last = training.learned()
    steps = [state.steps[step] for step in sorted(state.steps)]
    live = [state.live_at[version] for version in sorted(state.live_at)]
    ends = list(state.final_ends)
    return {
        "control": plan.control,
        "seed": plan.seed,
        "rewards": training.rewards,
        "first_third": first,
        "last_third": last,
        "rollouts": len({end.rollout_id for end in ends}),
        "attempts": len(state.ended),
        "failed_rollouts": sum(end.status == "failed" for end in ends),
        "model_calls": sum(len(end.call_ids) for end in ends),
        "groups": len(state.credited),
        "sequences": sum(group.sequences for group in state.credited.values()),
        "updates": len(steps),
        "iteration_s": [round(after - before, 1) for before, after in pairwise(live)],
        "steps": [step.metrics for step in steps],
        "timings_s": {name: round(seconds, 1) for name, seconds in timings.items()},
        "notes": state.notes,
    }


def _print_summary(console: Console, results: dict[str, Any], folder: Path) -> None:
    rewards = "  ".join(f"{reward:.2f}" for reward in results["rewards"])
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("mean reward by update", rewards)
    table.add_row("first third → last third", f"{results['first_third']:.3f} → {results['last_third']:.3f}")
    table.add_row(
        "counts",
        f"{results['rollouts']} rollouts, {results['model_calls']} model calls, {results['groups']} groups, "
        f"{results['sequences']} sequences, {results['updates']} updates, {results['failed_rollouts']} failed",
    )
    if results["iteration_s"]:
        table.add_row("time per update (median)", f"{median(results['iteration_s']):.1f} s")
    start = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in results["timings_s"].items())
    table.add_row("start and loop", start)
    console.print(table)
    console.print(f"curve   {folder / 'reward.png'}\nnumbers {folder / 'results.json'}\nlogs    {folder / 'logs'}")
    console.print(f"next    {as_typed()} replay --name again      (recomputes the same transitions from the log)")


def draw_curves(path: Path, curves: list[tuple[str, list[float]]]) -> None:
    """Draw mean reward by update, one line per run, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=120)
    for name, rewards in curves:
        axes.plot(range(1, len(rewards) + 1), rewards, marker="o", label=name)
    axes.set(
        xlabel="update", ylabel="mean reward", ylim=(0, 1.05), title="Calculator agent, SmolLM2-135M on 2 CPU cores"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
