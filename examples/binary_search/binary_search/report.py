"""What the experiment leaves: numbers as JSON, curves as a PNG, and tables that are written from the numbers alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from binary_search.study import Study

BEGIN, END = "<!-- generated: tables -->", "<!-- end of generated -->"
Results = dict[str, Any]
Runs = list[dict[str, Any]]


def save(path: Path, study: Study) -> None:
    """Write the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(study), indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what `save` wrote."""
    results: Results = json.loads(path.read_text())
    return results


def tables(results: Results) -> str:
    """The arms and the grids as Markdown."""
    seeds = sorted({run["seed"] for run in results["runs"]})
    rates = sorted({one["learning_rate"] for one in results["grid"]})
    head = ["pointless guess", "arm", *(f"seed {seed}" for seed in seeds), "mean", "last success", "greedy"]
    lines = [
        *_head([*head, "equal states"]),
        *(_row(_cells(name, runs)) for (_, name), runs in _by_arm(results).items()),
        "",
        *_head(["pointless guess", *(f"learning rate {rate:g}" for rate in rates)]),
        *(
            _row([f"{pointless:g}", *(f"{one['score']:.3f}" for one in found)])
            for pointless, found in _grids(results).items()
        ),
    ]
    return "\n".join(lines)


def rewrite(path: Path, generated: str) -> None:
    """Put `generated` between the marks of the page, and leave the rest of it alone."""
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{generated}\n{END}{after}")


def draw(path: Path, results: Results) -> None:
    """Success by training episodes: a thin line a seed, a thick one for their mean while all of them run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    by_arm = _by_arm(results)
    settings = list(dict.fromkeys(pointless for pointless, _ in by_arm))
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(name for _, name in by_arm))}
    figure, panels = plt.subplots(1, len(settings), figsize=(5 * len(settings) + 1, 4.2), dpi=120, squeeze=False)
    for (pointless, name), runs in by_arm.items():
        axes, colour = panels[0][settings.index(pointless)], colours[name]
        for run in runs:
            axes.plot(*_curve(run), color=colour, alpha=0.25, linewidth=0.8)
        ys = [mean(values) for values in zip(*(_curve(run)[1] for run in runs), strict=False)]
        axes.plot(_curve(runs[0])[0][: len(ys)], ys, color=colour, linewidth=2, label=name)
    for axes, pointless in zip(panels[0], settings, strict=True):
        axes.axhline(0.9, color="grey", linestyle=":", linewidth=1)
        axes.set(xlabel="training episodes", ylabel="success at temperature 1", ylim=(0, 1.02))
        axes.set_title(f"a pointless guess earns {pointless:g}")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _by_arm(results: Results) -> dict[tuple[float, str], Runs]:
    """Runs by (reward of a pointless guess, arm), in the order of their seeds."""
    found: dict[tuple[float, str], Runs] = {}
    for run in results["runs"]:
        found.setdefault((run["pointless"], run["arm"]), []).append(run)
    return {key: sorted(runs, key=lambda run: int(run["seed"])) for key, runs in found.items()}


def _grids(results: Results) -> dict[float, Runs]:
    """The grid's runs by the reward of a pointless guess, in the order of their learning rates."""
    found: dict[float, Runs] = {}
    for one in sorted(results["grid"], key=lambda one: float(one["learning_rate"])):
        found.setdefault(one["pointless"], []).append(one)
    return dict(sorted(found.items()))


def _cells(name: str, runs: Runs) -> list[str]:
    reached = [run["episodes_to_goal"] for run in runs]
    never = f"> {max(run['points'][-1]['episodes'] for run in runs):,}"
    return [
        f"{runs[0]['pointless']:g}",
        name,
        *(never if value is None else f"{value:,}" for value in reached),
        never if None in reached else f"{mean(reached):,.0f}",
        f"{mean(run['points'][-1]['sampled'] for run in runs):.3f}",
        f"{mean(run['points'][-1]['greedy'] for run in runs):.3f}",
        f"{mean(run['recurrence'] for run in runs):.2f}",
    ]


def _curve(run: dict[str, Any]) -> tuple[list[int], list[float]]:
    points = run["points"]
    return [point["episodes"] for point in points], [point["sampled"] for point in points]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]
