"""The screen of a training: one line for each update, evaluation and problem; on a terminal also what happens now."""

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from leyden.analysis.bars import bar
from leyden.training.problems import problems
from leyden.training.results import HeldOut, Update, shown
from leyden.training.state import TrainState

SLOW = " (the model is slow, not the agent)"


class View:
    """Shows a `TrainState`. `show` may be called often; a line is printed once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._shown: set[object] = set()
        self._is_first = True
        if self._live:
            self._live.start()

    def show(self, state: TrainState) -> None:
        """Print what is new, and draw what happens now."""
        when = "" if self._is_first else f"  {state.elapsed_s:.0f} s"
        moments: list[Update | HeldOut] = [*state.updates, *state.held_out]
        scale = _scale(moments)
        for moment in sorted(moments, key=_order):
            line = _update(moment, state, scale) if isinstance(moment, Update) else _held_out(moment, scale)
            self._once(_order(moment), self._line, line + when)
        for key, text in problems(state).items():
            self._once(key, self.warn, text)
        self._is_first = False
        if self._live:
            self._live.update(render(state))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing; the lines stay."""
        if self._live:
            self._live.stop()
            self._live = None

    def _line(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _once(self, key: object, tell: Callable[[str], None], text: str) -> None:
        if key not in self._shown:
            self._shown.add(key)
            tell(text)


def render(state: TrainState) -> RenderableType:
    """What happens now: phase, time, rollouts, updates, consumer lag, the last notes."""
    done, total = state.rollouts
    head = Text(f"{state.phase}   {state.elapsed_s:.0f} s   policy version {state.version}", style="bold")
    bars = Table.grid(padding=(0, 2))
    running = f"{done}/{total}   {state.queue.queued} waiting, {state.queue.running} running"
    bars.add_row("rollouts", ProgressBar(total=max(1, total), completed=done, width=40), running)
    made, asked = len(state.steps), state.schedule.updates
    bars.add_row("updates", ProgressBar(total=asked, completed=made, width=40), f"{made}/{asked}")
    lag = "  ".join(f"{group} {count}" for group, count in state.lag.items())
    waits = [Text(f"{state.model.text}{SLOW if state.model.is_long else ''}")] if state.model.calls else []
    notes = [Text(note, style="yellow") for note in state.notes[-3:]]
    return Group(head, bars, *waits, Text(f"consumer lag: {lag}", style="dim"), *notes)


def _order(moment: Update | HeldOut) -> tuple[int, int]:
    """Updates by number; a version's evaluation after the update that made it."""
    return (moment.number, 0) if isinstance(moment, Update) else (moment.version, 1)


def _update(one: Update, state: TrainState, scale: tuple[float, float]) -> str:
    asked = state.schedule.updates
    number = f"update {one.number:>{len(str(asked))}}/{asked}"
    learned = f"version {one.version}"
    useful = one.groups - round(one.flat * one.groups)
    if not one.learned:
        learned = "nothing to learn"
    elif useful < one.groups:
        learned += f"  learned from {useful} of {one.groups} tasks"
    return f"{number:<14} {bar(one.reward, scale)}  reward {one.reward:.3f}  {learned}"


def _held_out(one: HeldOut, scale: tuple[float, float]) -> str:
    level = bar(one.mean or 0.0, scale)
    left = f" of {one.rollouts}" if one.judged < one.rollouts else ""
    counted = f"version {one.version}  {one.judged}{left} rollouts"
    return f"{'held out':<14} {level}  reward {shown(one.mean)}  {counted}"


def _scale(moments: Sequence[Update | HeldOut]) -> tuple[float, float]:
    means = (one.reward if isinstance(one, Update) else one.mean for one in moments)
    rewards = [mean for mean in means if mean is not None]
    return min([0.0, *rewards]), max([1.0, *rewards])
