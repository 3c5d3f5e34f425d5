"""Parquet files and the columns that they share. A file appears only when it is complete."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CREDIT_FIELDS = [
    ("reward", pa.float64()),
    ("return", pa.float64()),
    ("advantage", pa.float64()),
    ("value", pa.float64()),
    ("rollout_reward", pa.float64()),
    ("rollout_id", pa.string()),
    ("attempt", pa.int32()),
    ("group_id", pa.string()),
    ("policy", pa.string()),
    ("policy_version", pa.int64()),
    ("credit", pa.string()),
    ("revision", pa.int32()),
    ("sequence_id", pa.string()),
    ("step", pa.int32()),
    ("done", pa.bool_()),
    ("call_id", pa.string()),
    ("choice", pa.int32()),
    ("agent_name", pa.string()),
    ("temperature", pa.float64()),
    ("origin", pa.string()),
    ("time", pa.string()),
]
"""The types of `credit_columns`, in their order."""
TOKENS, LOGPROBS = pa.list_(pa.int32()), pa.list_(pa.float32())


class ParquetFile:
    """A Parquet file (zstd), written under another name and renamed when closed. Each `add` makes a row group."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._unfinished = path.with_name(f"{path.name}.tmp")
        self._schema = schema
        self._writer = pq.ParquetWriter(self._unfinished, schema, compression="zstd")

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write `rows` as one row group."""
        self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._writer.close()
        self._unfinished.replace(self._path)
