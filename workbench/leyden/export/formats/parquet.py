"""Tuples as Parquet (zstd): one row a transition; messages and tools are columns of JSON text."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leyden.export.formats.base import credit_columns, token_columns
from leyden.export.rows import Row

SCHEMA = pa.schema(
    [
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
        ("state_token_ids", pa.list_(pa.int32())),
        ("action_token_ids", pa.list_(pa.int32())),
        ("action_logprobs", pa.list_(pa.float32())),
        ("next_state_token_ids", pa.list_(pa.int32())),
        ("state_messages", pa.string()),
        ("action_message", pa.string()),
        ("tools", pa.string()),
    ]
)


class ParquetTuples:
    """A row group for each lot of rows that it is given."""

    def __init__(self, path: Path) -> None:
        self.written = self.skipped = 0
        self._path = path
        self._aside = path.with_name(f"{path.name}.tmp")
        self._writer = pq.ParquetWriter(self._aside, SCHEMA, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        lines = [credit_columns(row) | token_columns(row) | _text_columns(row) for row in rows]
        self._writer.write_table(pa.Table.from_pylist(lines, schema=SCHEMA))
        self.written += len(rows)

    def close(self) -> None:
        self._writer.close()
        self._aside.replace(self._path)


def _text_columns(row: Row) -> dict[str, str | None]:
    columns = {"state_messages": row.prompt, "action_message": row.response, "tools": row.tools}
    return {name: None if value is None else json.dumps(value, ensure_ascii=False) for name, value in columns.items()}
