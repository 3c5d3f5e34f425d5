"""Streams rows from JSON Lines and Parquet files and Hugging Face data sets."""

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
"""Prefix of a source that is a Hugging Face data set."""
SAVED = "state.json"
"""File in a folder written by `Dataset.save_to_disk`, which holds one split."""
PARQUET_ROWS = 500
Row = dict[str, Any]
Placed = tuple[str, Row]
"""Where a row stands, for messages, and the row."""


@dataclass(frozen=True)
class Source:
    """A file's path, or `hf:NAME` (a data set's name or folder) with configuration and split."""

    text: str
    config: str | None = None
    split: str = "train"

    @property
    def name(self) -> str:
        """Default prefix of task ids: the file's name without suffix, or the data set's name."""
        if self.text.startswith(HUB):
            data = self.text.removeprefix(HUB)
            named = Path(data).resolve().name if Path(data).is_dir() else data.strip("/")
            return "/".join(part for part in (named, self.config, self.split) if part)
        return Path(self.text).stem


def rows_of(
    source: Source, columns: Sequence[str] | None = None, skip: int = 0, limit: int | None = None
) -> Iterator[Placed]:
    """The rows, each with its place: a file's line, or `Row n`. Reads only `columns` where the format allows it.

    Raises StackError.
    """
    return islice(_rows(source, columns), skip, None if limit is None else skip + limit)


def _numbered(rows: Iterator[Row]) -> Iterator[Placed]:
    return ((f"Row {number}", row) for number, row in enumerate(rows, 1))


def _rows(source: Source, columns: Sequence[str] | None) -> Iterator[Placed]:
    if source.text.startswith(HUB):
        return _numbered(_of_hub(source))
    path = Path(source.text)
    if not path.is_file():
        raise StackError(f"No such file: {path}. For a Hugging Face data set write {HUB}NAME.")
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _of_jsonl(path)
        case ".parquet":
            return _numbered(_of_parquet(path, columns))
        case other:
            raise StackError(f"{path.name}: unknown file type {other or '(no suffix)'!r}; use .jsonl or .parquet.")


def _of_jsonl(path: Path) -> Iterator[Placed]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path.name}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise StackError(f"{place}: not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise StackError(f"{place}: each line must be a JSON object with the columns as keys.")
            yield place, row


def _of_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StackError("Reading Parquet needs pyarrow: `pip install pyarrow`.") from error
    try:
        with pq.ParquetFile(path) as file:
            held = file.schema_arrow.names
            missing = [column for column in columns or () if column not in held]
            if missing:
                raise StackError(f"{path.name} has no column {missing[0]}; it has {', '.join(held)}.")
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns) if columns else None):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise StackError(f"{path.name} is not a readable Parquet file: {error}") from error


def _of_hub(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise StackError(
            f"{source.text} needs the package `datasets`: `pip install datasets`, "
            "or download the data set as a .jsonl or .parquet file."
        ) from error
    name = source.text.removeprefix(HUB)
    try:
        if (Path(name) / SAVED).is_file():
            return iter(datasets.load_from_disk(name))
        return iter(datasets.load_dataset(name, source.config, split=source.split, streaming=True))
    except Exception as error:
        raise StackError(f"Cannot load the data set {name}: {type(error).__name__}: {error}") from error


def jsonable(value: Any, where: str) -> Any:
    """`value` in JSON types: times as ISO 8601, decimals as numbers. Raises StackError for bytes and the like."""
    try:
        return json.loads(json.dumps(value, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StackError(f"{where} cannot be written as JSON: {error}. Leave that column out.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"type {type(value).__name__}")
