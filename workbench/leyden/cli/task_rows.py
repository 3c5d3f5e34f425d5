"""Rows of a file or data set, one at a time and without end in memory: JSON Lines, Parquet, Hugging Face data sets."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from leyden.stack.errors import StackError

HUB = "hf:"
"""What a source begins with that is a data set and not a file."""
SAVED = "state.json"
"""In a folder that `Dataset.save_to_disk` wrote: one split, in a form of its own."""
PARQUET_ROWS = 500
Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Where rows come from: a path, or `hf:NAME` (of a data set, or its folder) with its configuration and split."""

    text: str
    config: str | None = None
    split: str = "train"

    @property
    def name(self) -> str:
        """What tasks are named after: the file's name without its ending, or the data set's."""
        if self.text.startswith(HUB):
            data = self.text.removeprefix(HUB)
            named = Path(data).resolve().name if Path(data).is_dir() else data.strip("/")
            return "/".join(part for part in (named, self.config, self.split) if part)
        return Path(self.text).stem


def rows_of(
    source: Source, columns: Sequence[str] | None = None, skip: int = 0, limit: int | None = None
) -> Iterator[tuple[int, Row]]:
    """(Number from 1 on, row). `columns`: no others are needed. Raises StackError with one sentence."""
    numbered = enumerate(_rows(source, columns), 1)
    return islice(numbered, skip, None if limit is None else skip + limit)


def _rows(source: Source, columns: Sequence[str] | None) -> Iterator[Row]:
    if source.text.startswith(HUB):
        return _of_hub(source)
    path = Path(source.text)
    if not path.is_file():
        raise StackError(f"There is no file {path}. A Hugging Face data set is written {HUB}NAME.")
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _of_jsonl(path)
        case ".parquet":
            return _of_parquet(path, columns)
        case other:
            raise StackError(f"{path.name}: files end in .jsonl or .parquet, not in {other or 'nothing'}.")


def _of_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise StackError(f"{path.name}, line {number}: not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise StackError(f"{path.name}, line {number}: a row is a JSON object, with a value for each column.")
            yield row


def _of_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StackError("Reading Parquet needs pyarrow: install `leyden[local]`, or pyarrow itself.") from error
    try:
        with pq.ParquetFile(path) as file:
            held = file.schema_arrow.names
            missing = [column for column in columns or () if column not in held]
            if missing:
                raise StackError(f"{path.name} has no column {missing[0]}; it has {', '.join(held)}.")
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns) if columns else None):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise StackError(f"{path.name} cannot be read as Parquet: {error}") from error


def _of_hub(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise StackError(
            f"{source.text} needs Hugging Face's package `datasets`, which is not installed here: "
            "`pip install datasets`; or download the data set and name a .jsonl or .parquet file."
        ) from error
    name = source.text.removeprefix(HUB)
    try:
        if (Path(name) / SAVED).is_file():
            return iter(datasets.load_from_disk(name))
        return iter(datasets.load_dataset(name, source.config, split=source.split, streaming=True))
    except Exception as error:
        raise StackError(f"The data set {name} cannot be loaded: {type(error).__name__}: {error}") from error


def jsonable(value: Any, where: str) -> Any:
    """`value` as JSON has it: times in ISO's form, decimals as numbers. Raises StackError for bytes and the like."""
    try:
        return json.loads(json.dumps(value, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StackError(f"{where} has no form in JSON: {error}. Leave that column out.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")
