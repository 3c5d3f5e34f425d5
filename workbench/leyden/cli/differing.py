"""`leyden replay diff`: reads two sets of transitions and prints how they differ."""

from pathlib import Path

from rich.console import Console

from leyden.analysis.differences import Difference, Side, difference
from leyden.cli.formatting import number, print_columns, safe
from leyden.reading import Log, LogLocation, log_location
from leyden.reading.log import Tell
from leyden.reading.sets import Filters, TransitionSet, named_set, whole_groups
from leyden.stack.errors import StackError


async def compare_sets(a: str, b: str, *, policy: str | None, top: int, data_dir: Path, tell: Tell) -> Difference:
    """How set `b` differs from set `a`. Raises StackError if one is empty or they have no group in common."""
    named_a, named_b = named_set(a), named_set(b)
    with log_location(data_dir) as location:
        of_a = await _side(location, named_a, policy, tell)
        of_b = await _side(location, named_b, policy, tell)
    found = difference(of_a, of_b, top)
    if not found.groups:
        raise StackError(f"{a} and {b} have no group in common, so there is nothing to compare.")
    return found


async def _side(location: LogLocation, of: TransitionSet, policy: str | None, tell: Tell) -> Side:
    side = Side()
    async with Log(location, of.prefix, tell) as log:
        async for group in whole_groups(log, of, Filters(policy=policy)):
            side.add(group.end.policy, group.end.group_id, group.sequences)
    if not side.groups:
        raise StackError(f"{of.name} has no transitions. Check the name and --policy.")
    tell(f"{of.name}: {len(side.credits)} transitions in {len(side.groups)} groups")
    return side


def print_difference(a: str, b: str, found: Difference, console: Console) -> None:
    """Print counts, how advantages changed, groups with changed signs, and the rollouts that changed most."""
    console.print(
        f"groups: {found.groups} in both, {found.groups_only_a} only in {a}, {found.groups_only_b} only in {b}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"transitions in common groups: {found.same} equal, {found.changed} changed, {found.only_a} only in {a}, "
        f"{found.only_b} only in {b}",
        highlight=False,
        soft_wrap=True,
    )
    if not found.changed:
        return
    cells = [f"{name:.0%} {number(value)}" for name, value in found.quantiles.items()]
    console.print(f"\n[bold]advantage in {safe(b)} minus {safe(a)}[/]")
    correlation = "" if found.correlation is None else f", correlation {found.correlation:.3f}"
    console.print(f"mean {number(found.mean)}, sd {number(found.sd)}{correlation}; quantiles {', '.join(cells)}")
    if found.flips:
        console.print("\n[bold]changed signs, by group[/]")
        heads = ("policy", "group", "transitions", "changed sign", "to or from 0")
        rows = [(flip.policy, flip.group_id, flip.compared, flip.flipped, flip.zeroed) for flip in found.flips]
        print_columns(heads, rows, console, right=heads[2:])
    if found.top:
        console.print("\n[bold]rollouts with the largest changes[/]")
        columns = ("rollout", "attempt", "group", "transitions", "mean change", "largest")
        top = [
            (r.rollout_id, r.attempt, r.group_id, r.transitions, number(r.mean_change), number(r.largest_change))
            for r in found.top
        ]
        print_columns(columns, top, console, right=("attempt", *columns[3:]))
