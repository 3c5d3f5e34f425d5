"""An export from start to end: reads whole groups in batches, joins them with their calls, writes one file."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from leyden.events import SequenceCredited
from leyden.export.formats import WRITERS, ExportFormat, Writer
from leyden.export.rows import Row, origins_of, rows_of
from leyden.export.tasks import GroundTruth
from leyden.reading import CallReader, Log, LogLocation
from leyden.reading.log import Tell
from leyden.reading.sets import Filters, TransitionSet, whole_groups
from leyden.stack.errors import StackError

BATCH = 256
"""Sequences whose calls are read together; with one group, what is in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """Options of `leyden export`."""

    format: ExportFormat
    out: Path
    of: TransitionSet
    filters: Filters
    min_reward: float | None
    ground_truth: str


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Counts of an export."""

    groups: int
    sequences: int
    rows: int
    skipped: int
    without_text: int


async def run_export(plan: ExportPlan, location: LogLocation, tell: Tell) -> Exported:
    """Write the file. Raises StackError if there are no transitions."""
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    groups = sequences = without_text = 0
    with GroundTruth(plan.ground_truth) as truth:
        async with Log(location, plan.of.prefix, tell) as log, CallReader(location) as calls:
            if plan.format is ExportFormat.VERL:
                await truth.read(log)
            writer: Writer | None = None
            async for batch, count in _batches(log, plan):
                rows = await _joined(batch, calls)
                writer = writer or WRITERS[plan.format](plan.out, truth)
                writer.write(rows)
                groups, sequences = groups + count, sequences + len(batch)
                without_text += sum(row.prompt is None for row in rows)
                tell(f"{writer.written} rows of {groups} groups")
            if writer is None:
                raise StackError("No transitions match these options.")
            writer.close()
    return Exported(
        groups=groups, sequences=sequences, rows=writer.written, skipped=writer.skipped, without_text=without_text
    )


async def _batches(log: Log, plan: ExportPlan) -> AsyncIterator[tuple[list[SequenceCredited], int]]:
    """About `BATCH` sequences of whole groups at a time, with the number of groups."""
    batch: list[SequenceCredited] = []
    groups = 0
    async for group in whole_groups(log, plan.of, plan.filters):
        wanted = [s for s in group.sequences if plan.min_reward is None or s.rollout_reward >= plan.min_reward]
        batch += wanted
        groups += bool(wanted)
        if len(batch) >= BATCH:
            yield batch, groups
            batch, groups = [], 0
    if batch:
        yield batch, groups


async def _joined(sequences: list[SequenceCredited], calls: CallReader) -> list[Row]:
    found = await calls.at(origins_of(sequences))
    return [row for sequence in sequences for row in rows_of(sequence, found)]
