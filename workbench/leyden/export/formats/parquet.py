"""Tuples as Parquet: one row per transition; messages and tools are columns of JSON text."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from leyden.export.formats.base import credit_columns, token_columns
from leyden.export.formats.columns import CREDIT_FIELDS, LOGPROBS, TOKENS, ParquetFile
from leyden.export.rows import Row

SCHEMA = pa.schema(
    [
        *CREDIT_FIELDS,
        ("state_token_ids", TOKENS),
        ("action_token_ids", TOKENS),
        ("action_logprobs", LOGPROBS),
        ("next_state_token_ids", TOKENS),
        ("state_messages", pa.string()),
        ("action_message", pa.string()),
        ("tools", pa.string()),
    ]
)


class ParquetTuples:
    """A row group per call of `write`."""

    def __init__(self, path: Path) -> None:
        self.written = self.skipped = 0
        self._file = ParquetFile(path, SCHEMA)

    def write(self, rows: Sequence[Row]) -> None:
        self._file.add([credit_columns(row) | token_columns(row) | _text_columns(row) for row in rows])
        self.written += len(rows)

    def close(self) -> None:
        self._file.close()


def _text_columns(row: Row) -> dict[str, str | None]:
    columns = {"state_messages": row.prompt, "action_message": row.response, "tools": row.tools}
    return {name: None if value is None else json.dumps(value, ensure_ascii=False) for name, value in columns.items()}
