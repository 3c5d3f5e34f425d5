"""Exports, loaded back the way each tool's documentation says, and compared with the events that they were made of.

TRL: conversational prompt-completion, https://huggingface.co/docs/trl/dataset_formats.
verl: https://verl.readthedocs.io/en/latest/preparation/prepare_data.html.
LLaMA-Factory: data/README.md of hiyouga/LLaMA-Factory (sharegpt).
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import command_support as s
from leyden.events import ModelCallRecorded, unpack_ints
from leyden.events.codec import MODEL_CALLS
from leyden.export.formats import WRITERS, ExportFormat
from leyden.export.formats.llama_factory import sharegpt
from leyden.export.messages import NotTextError, plain_message
from leyden.export.rows import Row, rows_of
from leyden.export.tasks import GroundTruth

SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "How high is the Zugspitze?"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "tool-1", "type": "function", "function": {"name": "search", "arguments": '{"query": "Zugspitze"}'}}
    ],
}
TOLD = {"role": "tool", "content": "2,962 m", "tool_call_id": "tool-1"}
ANSWERED = {"role": "assistant", "content": "It is 2,962 m high."}


def rows(lost: str | None = None) -> list[Row]:
    """The rows of the recorded group; the call `lost` is gone from the log."""
    calls: dict[str, ModelCallRecorded] = {
        f"{MODEL_CALLS}/0/{at}": one
        for at, one in enumerate([*s.calls_of_a(), s.call_of_b()])
        if one.call_id != lost
    }  # fmt: skip
    of_a, of_b, _ = s.credited()
    return [*rows_of(of_a, calls), *rows_of(of_b, calls)]  # type: ignore[arg-type]


def written(name: ExportFormat, path: Path, given: list[Row]) -> tuple[int, int]:
    with GroundTruth("answer") as truth:
        truth.add(s.ended(s.A, []))
        writer = WRITERS[name](path, truth)
        writer.write(given[:1])
        writer.write(given[1:])
        writer.close()
    return writer.written, writer.skipped


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_is_state_action_reward_and_next_state() -> None:
    first, second, other = rows()
    assert first.state_T.tolist() == [1, 2, 3]
    assert first.action_T.tolist() == [4, 5]
    assert first.next_state_T is not None
    assert first.next_state_T.tolist() == second.state_T.tolist() == [1, 2, 3, 4, 5, 6]
    assert (first.done, second.done, second.next_state_T, other.done) == (False, True, None, True)
    assert [row.reward for row in (first, second)] == [0.0, 1.0]
    assert second.logprobs_T.tolist() == [-0.5] * 3


@pytest.mark.parametrize("name", [ExportFormat.PARQUET, ExportFormat.JSONL])
def test_tuples_come_back_as_the_events_had_them(tmp_path: Path, name: ExportFormat) -> None:
    path = tmp_path / "tuples"
    assert written(name, path, rows()) == (3, 0)
    found = pq.read_table(path).to_pylist() if name is ExportFormat.PARQUET else json_lines(path)
    (of_a, of_b, _), calls = s.credited(), [*s.calls_of_a(), s.call_of_b()]
    transitions = [t for q in (of_a, of_b) for t in q.transitions]  # type: ignore[attr-defined]
    for row, t, call in zip(found, transitions, calls, strict=True):
        assert (row["call_id"], row["return"], row["advantage"]) == (t.call_id, t.return_, t.advantage)
        assert (row["reward"], row["policy_version"], row["origin"]) == (t.reward, t.policy_version, t.origin)
        assert row["state_token_ids"] == unpack_ints(call.prompt_token_ids).tolist()
        assert row["action_token_ids"] == unpack_ints(call.choices[0].token_ids).tolist()
        assert row["action_logprobs"] == [-0.5] * len(row["action_token_ids"])
    assert [row["done"] for row in found] == [False, True, True]
    state, action = found[1]["state_messages"], found[1]["action_message"]
    if name is ExportFormat.PARQUET:
        state, action = json.loads(state), json.loads(action)
    assert (state, action) == ([SYSTEM, ASKED, CALLED, TOLD], ANSWERED)


def test_trl_reads_prompt_and_completion_as_conversations(tmp_path: Path) -> None:
    path = tmp_path / "trl.jsonl"
    assert written(ExportFormat.TRL, path, rows()) == (3, 0)
    found = json_lines(path)
    for row in found:  # trl.data_utils.is_conversational: a list of messages with roles under a known column
        assert all(isinstance(row[column], list) and "role" in row[column][0] for column in ("prompt", "completion"))
        assert isinstance(json.loads(row["tools"]), list)
    assert (found[0]["prompt"], found[0]["completion"]) == ([SYSTEM, ASKED], [CALLED])
    assert found[1]["prompt"] == [SYSTEM, ASKED, CALLED, TOLD]
    assert found[1]["completion_ids"] == [7, 8, 9]
    assert [row["advantage"] for row in found] == [0.7, 0.7, -0.7]


def test_the_datasets_library_loads_every_format_as_it_was_written(tmp_path: Path) -> None:
    from datasets import load_dataset

    for name in ExportFormat:
        kind = "parquet" if name in (ExportFormat.PARQUET, ExportFormat.VERL) else "json"
        path = tmp_path / f"{name}.{kind}"
        written(name, path, rows())
        loaded = load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        held = pq.read_table(path).to_pylist() if kind == "parquet" else json_lines(path)
        assert len(held) == 3
        for row, other in zip(loaded, held, strict=True):
            dated = [one.pop("time", None) for one in (row, other)]  # JSON's times are read as times
            assert _without_nulls(row) == _without_nulls(other)
            assert (dated[0] is None) == (dated[1] is None)


def test_verl_reads_its_five_fields_and_the_whole_conversation(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    assert written(ExportFormat.VERL, path, rows()) == (3, 0)
    found = pq.read_table(path).to_pylist()
    assert {"data_source", "prompt", "ability", "reward_model", "extra_info"} <= found[0].keys()
    assert found[1]["reward_model"] == {"style": "rule", "ground_truth": "2962"}
    assert found[2]["reward_model"]["ground_truth"] == ""
    assert found[1]["response"] == "It is 2,962 m high."
    assert [_without_nulls(m) for m in found[1]["messages"]] == [SYSTEM, ASKED, CALLED, TOLD, ANSWERED]
    assert found[1]["messages"][:-1] == found[1]["prompt"]
    extra = found[1]["extra_info"]
    assert (extra["index"], extra["response_ids"], extra["advantage"]) == (1, [7, 8, 9], 0.7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.parquet"]


def test_verl_rows_without_tools_have_messages_of_role_and_content_alone(tmp_path: Path) -> None:
    written(ExportFormat.VERL, tmp_path / "x", rows()[2:])
    (row,) = pq.read_table(tmp_path / "x").to_pylist()
    assert row["prompt"] == [{"role": "user", "content": "How high?"}]


def test_llama_factory_finds_the_file_by_its_entry_and_turns_alternate(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    assert written(ExportFormat.LLAMA_FACTORY, tmp_path / "zug.jsonl", rows()) == (3, 0)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info.keys() == {"mine", "zug", "zug_kto"}
    assert info["zug_kto"]["columns"]["kto_tag"] == "kto_tag"
    columns = info["zug"]["columns"]
    assert info["zug"]["formatting"] == "sharegpt"
    found = json_lines(tmp_path / info["zug"]["file_name"])
    for row in found:
        turns = [turn["from"] for turn in row[columns["messages"]]]
        assert len(turns) % 2 == 0
        assert set(turns[::2]) <= {"human", "observation"}
        assert set(turns[1::2]) <= {"gpt", "function_call"}
    assert found[1][columns["system"]] == "Be brief."
    assert [turn["value"] for turn in found[1][columns["messages"]]] == [
        "How high is the Zugspitze?",
        '[{"name": "search", "arguments": {"query": "Zugspitze"}}]',
        "2,962 m",
        "It is 2,962 m high.",
    ]
    assert [row["kto_tag"] for row in found] == [True, True, False]


def test_llama_factory_joins_turns_of_one_side_and_skips_what_cannot_alternate() -> None:
    user, told, said = (plain_message(m) for m in (ASKED, TOLD, ANSWERED))
    joined = sharegpt([user, user, said])
    assert joined is not None
    assert joined[1][0]["value"] == f"{ASKED['content']}\n{ASKED['content']}"
    tools = sharegpt([user, plain_message(CALLED), told, told, said])
    assert tools is not None
    assert tools[1][2]["value"] == "2,962 m\n</tool_response>\n<tool_response>\n2,962 m"
    assert sharegpt([said, user, said]) is None
    assert sharegpt([user]) is None


@pytest.mark.parametrize("name", [ExportFormat.TRL, ExportFormat.VERL, ExportFormat.LLAMA_FACTORY])
def test_a_text_format_skips_a_row_whose_call_is_gone_and_tuples_keep_its_tokens(
    tmp_path: Path, name: ExportFormat
) -> None:
    assert written(name, tmp_path / "text", rows(lost="a1")) == (2, 1)
    assert written(ExportFormat.JSONL, tmp_path / "tuples", rows(lost="a1")) == (3, 0)
    assert json_lines(tmp_path / "tuples")[0]["state_messages"] is None


def test_a_record_of_another_call_at_the_same_place_gives_no_text() -> None:
    of_a = s.credited()[0]
    swapped = {f"{MODEL_CALLS}/0/0": s.call_of_b(), f"{MODEL_CALLS}/0/1": s.calls_of_a()[1]}
    assert [row.prompt is None for row in rows_of(of_a, swapped)] == [True, False]  # type: ignore[arg-type]


def test_what_is_no_text_is_not_made_into_text() -> None:
    with pytest.raises(NotTextError):
        plain_message({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})


def test_a_file_is_there_only_once_it_is_whole(tmp_path: Path) -> None:
    with GroundTruth("answer") as truth:
        for name in ExportFormat:
            writer = WRITERS[name](tmp_path / name, truth)
            writer.write(rows())
            assert not (tmp_path / name).exists()
            writer.close()
            assert (tmp_path / name).exists()


def _without_nulls(value: Any) -> Any:
    """What a table has no value for is null in its rows, and not there in JSON Lines."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value
