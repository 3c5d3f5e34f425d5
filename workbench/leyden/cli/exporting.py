"""`leyden export`: makes a plan of the options and reports the result."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from leyden.export.formats import ExportFormat
from leyden.export.formats.llama_factory import INFO, dataset_entries
from leyden.export.run import Exported, ExportPlan, run_export
from leyden.reading import log_location
from leyden.reading.log import Tell
from leyden.reading.sets import Filters, named_set
from leyden.stack.errors import StackError


def run_export_command(
    *,
    name: str,
    out: Path,
    of: str,
    filters: tuple[str | None, str | None, datetime | None, datetime | None],
    min_reward: float | None,
    ground_truth: str,
    data_dir: Path,
    tell: Tell,
) -> list[str]:
    """Export, and return the lines to print. Raises StackError."""
    if name not in list(ExportFormat):
        raise StackError(f"--format {name!r}: use one of {', '.join(ExportFormat)}.")
    policy, group, start, end = filters
    chosen = Filters(policy, group, as_utc(start), as_utc(end))
    plan = ExportPlan(
        format=ExportFormat(name),
        out=out,
        of=named_set(of),
        filters=chosen,
        min_reward=min_reward,
        ground_truth=ground_truth,
    )
    with log_location(data_dir) as location:
        return _told(plan, asyncio.run(run_export(plan, location, tell)))


def as_utc(moment: datetime | None) -> datetime | None:
    """A time without a zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _told(plan: ExportPlan, done: Exported) -> list[str]:
    lines = [f"{done.rows} transitions of {done.sequences} sequences in {done.groups} groups: {plan.out}"]
    if done.without_text:
        lines.append(f"{done.without_text} have no text: their calls have expired from the log, or hold more than text")
    if done.skipped:
        lines.append(f"{done.skipped} were skipped: the format {plan.format} cannot represent them")
    if plan.format is ExportFormat.LLAMA_FACTORY:
        names = ", ".join(dataset_entries(plan.out))
        lines.append(f"listed in {plan.out.parent / INFO}; use dataset_dir: {plan.out.parent}, dataset: {names}")
    return lines
