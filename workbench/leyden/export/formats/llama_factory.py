"""LLaMA-Factory's sharegpt format as JSON Lines, with its entries in `dataset_info.json` beside the file.

Turns must alternate: human or observation, then gpt or function_call. Consecutive messages of one side are joined, as
its own converter joins tool results; a conversation that starts with an assistant is skipped.
Two entries name the file: the file's stem for fine-tuning, and `<stem>_kto`, where `kto_tag` is advantage > 0.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from leyden.export.formats.base import JsonLines, credit_columns, text_of
from leyden.export.messages import Message
from leyden.export.rows import Row

INFO = "dataset_info.json"
_ASKS = {"user": "human", "tool": "observation", "function": "observation", "developer": "human"}
_BETWEEN = {"observation": "\n</tool_response>\n<tool_response>\n"}

Turn = dict[str, str]


class LlamaFactoryWriter:
    """One line per action; the conversation before it is the prompt."""

    def __init__(self, path: Path) -> None:
        self.written = self.skipped = 0
        self._path = path
        self._lines = JsonLines(path)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            text = text_of(row)
            turns = sharegpt([*text[0], text[1]]) if text else None
            if turns is None:
                self.skipped += 1
                continue
            system, conversations = turns
            tools = json.dumps(row.tools, ensure_ascii=False) if row.tools else ""
            line = {"conversations": conversations, "system": system, "tools": tools, "kto_tag": row.advantage > 0}
            self._lines.add(line | credit_columns(row))
            self.written += 1

    def close(self) -> None:
        self._lines.close()
        info = self._path.parent / INFO
        entries = json.loads(info.read_text()) if info.exists() else {}
        info.write_text(json.dumps(entries | dataset_entries(self._path), indent=2) + "\n")


def dataset_entries(path: Path) -> dict[str, object]:
    """The entries for the file in `dataset_info.json`."""
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    entry = {"file_name": path.name, "formatting": "sharegpt", "columns": columns}
    return {path.stem: entry, f"{path.stem}_kto": entry | {"columns": columns | {"kto_tag": "kto_tag"}}}


def sharegpt(messages: Sequence[Message]) -> tuple[str, list[Turn]] | None:
    """System prompt and alternating turns; None if they do not alternate."""
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    turns: list[Turn] = []
    for message in messages:
        if message["role"] == "system":
            continue
        turn = _turn(message)
        if turns and turns[-1]["from"] == turn["from"]:
            turns[-1]["value"] += _BETWEEN.get(turn["from"], "\n") + turn["value"]
        else:
            turns.append(turn)
    asking = [turn["from"] in ("human", "observation") for turn in turns]
    alternate = bool(turns) and asking == [index % 2 == 0 for index in range(len(turns))] and not asking[-1]
    return (system, turns) if alternate else None


def _turn(message: Message) -> Turn:
    if message["role"] in _ASKS:
        return {"from": _ASKS[message["role"]], "value": message["content"]}
    calls = [{"name": c["function"]["name"], "arguments": _parsed(c["function"]["arguments"])}
             for c in message.get("tool_calls", [])]  # fmt: skip
    if calls:
        return {"from": "function_call", "value": json.dumps(calls, ensure_ascii=False)}
    return {"from": "gpt", "value": message["content"]}


def _parsed(arguments: str) -> object:
    """Arguments as an object, for LLaMA-Factory's tool formatter; invalid JSON stays text."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
