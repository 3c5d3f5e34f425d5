"""TRL's conversational prompt-completion type, as JSON Lines for `datasets.load_dataset("json", …)`.

`prompt` and `completion` are lists of messages, `tools` is JSON text (TRL's SFTTrainer decodes it). TRL passes other
columns to reward functions and samplers. Arguments of tool calls stay the JSON text that the model wrote.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from leyden.export.formats.base import JsonLines, credit_columns, text_of, token_columns
from leyden.export.rows import Row


class TrlWriter:
    """One line per action, without rows that lack text. `prompt_ids`, `completion_ids`, `logprobs` are the engine's."""

    def __init__(self, path: Path) -> None:
        self.written = self.skipped = 0
        self._lines = JsonLines(path)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            text = text_of(row)
            if text is None:
                self.skipped += 1
                continue
            prompt, completion = text
            tokens = token_columns(row)
            line = {
                "prompt": prompt,
                "completion": [completion],
                "prompt_ids": tokens["state_token_ids"],
                "completion_ids": tokens["action_token_ids"],
                "logprobs": tokens["action_logprobs"],
            }
            tools = {"tools": json.dumps(row.tools, ensure_ascii=False)} if row.tools else {}
            self._lines.add(line | tools | credit_columns(row))
            self.written += 1

    def close(self) -> None:
        self._lines.close()
