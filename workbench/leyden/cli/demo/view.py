"""The screen of the demo: tables that are updated in place; without a terminal, one line per update."""

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from leyden.cli.demo.state import DemoState

_BLOCKS = " ▁▂▃▄▅▆▇█"


class View:
    """Shows a `DemoState`. `show` may be called often."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self._told = 0
        if self._live:
            self._live.start()

    def show(self, state: DemoState) -> None:
        """Draw `state`; without a terminal, print one line per new update."""
        if self._live:
            self._live.update(render(state))
            return
        for step in sorted(state.steps)[self._told :]:
            reward = state.steps[step].metrics["reward/mean"]
            lag = sum(state.lag.values())
            self._console.print(
                f"update {step}/{state.updates}  reward {reward:.3f}  lag {lag}  {state.elapsed_s:.0f} s"
            )
            self._told += 1

    def warn(self, text: str) -> None:
        """Print a warning; on a terminal above the tables, where it stays."""
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop updating; the last tables stay on the screen."""
        if self._live:
            self._live.stop()


def render(state: DemoState) -> RenderableType:
    """The tables: phase and time, progress, rewards so far, consumer lag, notes."""
    done = state.finished_rollouts
    total = state.updates * state.rollouts_per_update
    head = Text(f"{state.phase}   {state.elapsed_s:5.0f} s   policy version {state.version}", style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("rollouts", ProgressBar(total=total, completed=done, width=40), f"{done}/{total}")
    running = f"{state.queue.queued} waiting, {state.queue.running} running"
    facts.add_row("updates", ProgressBar(total=state.updates, completed=len(state.steps), width=40), running)
    rewards = Table("update", *(str(step) for step in sorted(state.steps)), title="mean reward", title_justify="left")
    rewards.add_row("", *(f"{reward:.2f}" for reward in state.rewards))
    rewards.add_row("", *(_bar(reward) for reward in state.rewards))
    lag = "  ".join(f"{group} {count}" for group, count in state.lag.items())
    notes = [Text(note, style="yellow") for note in state.notes[-3:]]
    return Group(head, facts, rewards, Text(f"consumer lag: {lag}", style="dim"), *notes)


def _bar(reward: float) -> str:
    level = min(len(_BLOCKS) - 1, max(0, round(reward * (len(_BLOCKS) - 1))))
    return _BLOCKS[level] * 3
