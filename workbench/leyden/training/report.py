"""The end of a training in words: what was learned, the best version, how to use it, what went wrong."""

from leyden.stack.program import as_typed
from leyden.training.results import Training, shown


def report_lines(training: Training) -> list[str]:
    """The last lines that `leyden train` prints."""
    return [*_learned(training), *_best(training), *(f"problem: {text}" for text in training.problems)]


def _learned(training: Training) -> list[str]:
    lines = []
    if training.updates:
        first, last = training.learned()
        lines.append(f"training: {first:.3f} → {last:.3f} (first and last third of {len(training.updates)} updates)")
    if training.held_out:
        before, after = training.held_out[0], training.held_out[-1]
        lines.append(
            f"held out: {shown(before.mean)} (version {before.version}) → {shown(after.mean)} (version {after.version})"
        )
    return lines


def _best(training: Training) -> list[str]:
    best = training.best
    if best is None:
        return []
    if best.version == 0:
        return [f"best: the untrained model, reward {best.reward:.3f}"]
    lines = [f"best: version {best.version}, reward {best.reward:.3f}"]
    if best.weights is not None:
        lines += [
            f"its weights: {best.weights} (Hugging Face format)",
            f"serve it: {as_typed()} up --data-dir {training.data_dir.parent / 'served'} --model {best.weights}",
        ]
    return lines
