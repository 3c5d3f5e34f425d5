"""verl's rows as Parquet: data_source, prompt, ability, reward_model, extra_info; and the response.

`messages` is prompt and response together, the column that verl's multi-turn SFT dataset reads. The message columns
have tool fields only if some message of the file has them, because chat templates treat a null field as present. This
is known only at the end, so rows are kept in a JSON Lines file until then.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from leyden.export.formats.base import JsonLines, credit_columns, text_of, token_columns
from leyden.export.formats.columns import CREDIT_FIELDS, LOGPROBS, TOKENS, ParquetFile
from leyden.export.rows import Row
from leyden.export.tasks import GroundTruth

ROW_GROUP = 512
_CALL = pa.struct(
    [("id", pa.string()), ("type", pa.string()),
     ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())]))]
)  # fmt: skip
_PLAIN = [("role", pa.string()), ("content", pa.string())]
_WITH_TOOLS = [*_PLAIN, ("tool_calls", pa.list_(_CALL)), ("tool_call_id", pa.string()), ("name", pa.string())]
_EXTRA = pa.struct(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("prompt_ids", TOKENS),
        ("response_ids", TOKENS),
        ("response_logprobs", LOGPROBS),
        *CREDIT_FIELDS,
    ]
)


class VerlWriter:
    """One row per action; rows without text are skipped."""

    def __init__(self, path: Path, truth: GroundTruth) -> None:
        self.written = self.skipped = 0
        self._path = path
        self._truth = truth
        self._spool = path.with_name(f"{path.name}.rows")
        self._lines = JsonLines(self._spool)
        self._tools = False

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            text = text_of(row)
            if text is None:
                self.skipped += 1
                continue
            prompt, response = text
            self._tools = self._tools or any(len(message) > 2 for message in (*prompt, response))
            self._lines.add(
                {
                    "data_source": f"leyden/{row.policy}",
                    "prompt": prompt,
                    "response": response["content"],
                    "messages": [*prompt, response],
                    "ability": "agent",
                    "reward_model": {"style": "rule", "ground_truth": self._truth.of(row.rollout_id)},
                    "extra_info": self._extra(row),
                    "tools": json.dumps(row.tools, ensure_ascii=False) if row.tools else None,
                }
            )
            self.written += 1

    def close(self) -> None:
        self._lines.close()
        message = pa.list_(pa.struct(_WITH_TOOLS if self._tools else _PLAIN))
        fields = [("data_source", pa.string()), ("prompt", message), ("response", pa.string()), ("messages", message)]
        fields += [("ability", pa.string())]
        fields += [("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())]))]
        fields += [("extra_info", _EXTRA)] + ([("tools", pa.string())] if self._tools else [])
        file = ParquetFile(self._path, pa.schema(fields))
        for batch in _batches(self._spool):
            file.add(batch)
        file.close()
        self._spool.unlink()

    def _extra(self, row: Row) -> dict[str, object]:
        tokens = token_columns(row)
        return credit_columns(row) | {
            "split": "train",
            "index": self.written,
            "prompt_ids": tokens["state_token_ids"],
            "response_ids": tokens["action_token_ids"],
            "response_logprobs": tokens["action_logprobs"],
        }


def _batches(spool: Path) -> Iterator[list[dict[str, object]]]:
    with spool.open(encoding="utf-8") as lines:
        while batch := [json.loads(line) for line in islice(lines, ROW_GROUP)]:
            yield batch
