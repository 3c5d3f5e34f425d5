"""The interface of a format, JSON Lines files, and the columns that formats share."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from leyden.export.messages import Message
from leyden.export.rows import Row


class Writer(Protocol):
    """Writes rows. `written` and `skipped` count them: a text format skips rows without text."""

    written: int
    skipped: int

    def write(self, rows: Sequence[Row]) -> None:
        """Add `rows`."""
        ...

    def close(self) -> None:
        """Finish the file and give it its name."""
        ...


class JsonLines:
    """A JSON Lines file, written under another name and renamed when closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished = path.with_name(f"{path.name}.tmp")
        self._file: IO[str] = self._unfinished.open("w", encoding="utf-8")

    def add(self, line: Mapping[str, object]) -> None:
        """Write one line."""
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._file.close()
        self._unfinished.replace(self.path)


def credit_columns(row: Row) -> dict[str, object]:
    """Columns that every format has besides its own."""
    return {
        "reward": row.reward,
        "return": row.return_,
        "advantage": row.advantage,
        "value": row.value,
        "rollout_reward": row.rollout_reward,
        "rollout_id": row.rollout_id,
        "attempt": row.attempt,
        "group_id": row.group_id,
        "policy": row.policy,
        "policy_version": row.policy_version,
        "credit": row.credit,
        "revision": row.revision,
        "sequence_id": row.sequence_id,
        "step": row.step,
        "done": row.done,
        "call_id": row.call_id,
        "choice": row.choice,
        "agent_name": row.agent_name,
        "temperature": row.temperature,
        "origin": row.origin,
        "time": row.time.isoformat(),
    }


def token_columns(row: Row) -> dict[str, object]:
    """Token ids and logprobs as the engine returned them; text is never tokenised again."""
    following = row.next_state_T
    return {
        "state_token_ids": row.state_T.tolist(),
        "action_token_ids": row.action_T.tolist(),
        "action_logprobs": row.logprobs_T.tolist(),
        "next_state_token_ids": None if following is None else following.tolist(),
    }


def text_of(row: Row) -> tuple[list[Message], Message] | None:
    """Prompt and response; None if the row has no text."""
    return None if row.prompt is None or row.response is None else (row.prompt, row.response)
