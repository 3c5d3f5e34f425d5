"""`leyden enqueue`: rows become tasks, in batches, and twice is once."""

import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from enqueue_support import ROWS, SHARED, TaskGateway, plan, queue_of, quiet
from leyden.cli.app import app
from leyden.cli.enqueueing import Enqueued, enqueue, told
from leyden.cli.gateway_requests import TaskQueue
from leyden.client.gateway import GatewayClient
from leyden.gateway.http.bodies import TasksBody
from leyden.ids import rollout_id_of
from leyden.stack.errors import StackError
from leyden.training.task_rows import Source
from leyden.training.tasks import BATCH_BYTES, BATCH_TASKS, TaskSource, batches, tasks_of


@pytest.fixture
def gateway() -> TaskGateway:
    return TaskGateway()


@pytest.fixture
def queue(gateway: TaskGateway) -> TaskQueue:
    return queue_of(gateway)


def jsonl(folder: Path, rows: list[Any], name: str = "sums.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_row_is_a_task_with_its_input_shown_and_its_metadata_kept(tmp_path: Path) -> None:
    first = next(iter(tasks_of(plan(jsonl(tmp_path, ROWS)))))
    task_id = first.pop("task_id")
    assert task_id.startswith("sums:")
    assert first == {"input": "0 + 1?", "metadata": {"answer": 1}, **SHARED}


def test_running_it_twice_changes_nothing(tmp_path: Path, gateway: TaskGateway, queue: TaskQueue) -> None:
    source = jsonl(tmp_path, ROWS)
    assert enqueue(plan(source), queue, quiet) == Enqueued(tasks=5, rollouts=10, known=0)
    before = dict(gateway.tasks)
    assert enqueue(plan(source), queue, quiet) == Enqueued(tasks=5, rollouts=10, known=5)
    assert gateway.tasks == before


def test_another_name_makes_new_tasks_and_other_samples_are_told(
    tmp_path: Path, gateway: TaskGateway, queue: TaskQueue
) -> None:
    source = jsonl(tmp_path, ROWS)
    enqueue(plan(source), queue, quiet)
    assert enqueue(plan(source, name="epoch-2"), queue, quiet).known == 0
    other = enqueue(plan(source, shared={"samples": 9}), queue, quiet)
    assert (other.known, other.otherwise, len(gateway.tasks)) == (5, 5, 10)
    assert "5 exist with another number of samples" in told(other)


def test_a_run_that_was_cut_off_is_gone_on_with(tmp_path: Path, gateway: TaskGateway) -> None:
    source = jsonl(tmp_path, [{"input": n} for n in range(3 * BATCH_TASKS)])
    whole = TaskSource(Source(source))

    def dies(request: httpx.Request) -> httpx.Response:
        if len(gateway.requests) == 2:
            raise httpx.ConnectError("gone", request=request)
        return gateway(request)

    dying = TaskQueue(GatewayClient("http://g", "k", transport=httpx.MockTransport(dies)), 0.0)
    with pytest.raises(StackError, match=r"Run the command again to continue.*400 tasks were enqueued before that"):
        enqueue(whole, dying, quiet)
    done = enqueue(whole, queue_of(gateway), quiet)
    assert (done.tasks, done.known, len(gateway.tasks)) == (600, 400, 600)


def test_a_gateway_that_is_away_is_waited_for(tmp_path: Path, gateway: TaskGateway, queue: TaskQueue) -> None:
    gateway.away = 2
    assert enqueue(plan(jsonl(tmp_path, ROWS)), queue, quiet).tasks == 5


def test_a_refusal_is_told_in_the_gateways_words(tmp_path: Path) -> None:
    def refuses(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"error": {"type": "scope_needed", "message": "scope `runner` is needed"}})

    refused = TaskQueue(GatewayClient("http://g", "k", transport=httpx.MockTransport(refuses)), 5.0)
    with pytest.raises(StackError, match="answered 403: scope `runner` is needed"):
        enqueue(plan(jsonl(tmp_path, ROWS)), refused, quiet)


def test_ids_come_from_a_column_or_from_what_the_row_says(tmp_path: Path) -> None:
    rows = [{"input": "a", "id": 7}, {"input": "a", "id": 8}, {"input": "a", "id": 9, "other": 1}]
    source = jsonl(tmp_path, rows)
    named = [task["task_id"] for task in tasks_of(TaskSource(Source(source), id_column="id"))]
    assert named == ["sums:7", "sums:8", "sums:9"]
    content = {task["task_id"] for task in tasks_of(TaskSource(Source(source)))}
    assert len(content) == 1, "the same input and metadata are the same task"
    own = jsonl(tmp_path, [{"input": "a", "task_id": "x" * 300}], "own.jsonl")
    (task,) = tasks_of(TaskSource(Source(own)))
    assert task["task_id"].startswith("own:xxx") and len(task["task_id"]) <= 256


def test_columns_can_be_many_or_all_others(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    (task, *_) = tasks_of(plan(source, input_columns=["question", "level"], metadata_columns=["*"]))
    assert (task["input"], task["metadata"]) == ({"question": "0 + 1?", "level": "easy"}, {"answer": 1})
    held = jsonl(tmp_path, [{"input": 1, "metadata": {"answer": 2}}], "held.jsonl")
    (task,) = tasks_of(TaskSource(Source(held)))
    assert (task["input"], task["metadata"]) == (1, {"answer": 2})


def test_rows_can_be_skipped_and_limited(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    assert [t["input"] for t in tasks_of(plan(source, skip=1, limit=2))] == ["1 + 1?", "2 + 1?"]


def test_parquet_gives_the_same_tasks_as_json_lines(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    path = tmp_path / "sums.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
    assert list(tasks_of(plan(str(path)))) == list(tasks_of(plan(source)))
    assert len(list(tasks_of(plan(str(path), id_column="level")))) == 5, "only the named columns are read"


def test_values_that_json_has_no_form_for(tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.Table.from_pylist([{"input": date(2026, 1, 2), "image": b"\x00"}]), path)
    (task,) = tasks_of(TaskSource(Source(str(path))))
    assert task["input"] == "2026-01-02"
    with pytest.raises(StackError, match="Row 1, column image, cannot be written as JSON: type bytes"):
        list(tasks_of(TaskSource(Source(str(path)), metadata_columns=["image"])))


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ('{"a": 1}\n', {"input_columns": []}, "line 1 has no column input; it has a. Name the input column"),
        ('{"question": 1}\n', {}, "line 1 has no column answer; it has question."),
        ('{"question": 1}\n[1]\n', {"metadata_columns": []}, "line 2: each line must be a JSON object"),
        ('{"question": 1}\n{\n', {"metadata_columns": []}, "line 2: not JSON"),
        ('{"question": 1, "answer": 1, "id": 1.5}\n', {"id_column": "id"}, "an id must be a string or an integer"),
    ],
)
def test_what_is_wrong_with_a_row_is_one_sentence(
    tmp_path: Path, text: str, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(StackError, match=said):
        list(tasks_of(plan(str(path), **changes)))


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.jsonl", "No such file: .*none.jsonl"), ("rows.csv", "unknown file type '.csv'; use .jsonl or .parquet")],
)
def test_what_is_no_source_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(StackError, match=said):
        list(tasks_of(plan(str(tmp_path / name))))


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(StackError, match="is not a readable Parquet file"):
        list(tasks_of(plan(str(path))))
    pq.write_table(pa.Table.from_pylist([{"question": 1, "answer": 2}]), path)
    with pytest.raises(StackError, match="has no column id; it has question, answer"):
        list(tasks_of(plan(str(path), id_column="id")))


def test_a_data_set_of_hugging_face_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        asked.append((name, config, split, streaming))
        if name == "no/such":
            raise FileNotFoundError("not on the hub")
        return iter(ROWS)

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    source = Source("hf:openai/gsm8k", "main", "test")
    (task, *_) = tasks_of(TaskSource(source, input_columns=["question"]))
    assert asked == [("openai/gsm8k", "main", "test", True)]
    assert task["task_id"].startswith("openai/gsm8k/main/test:")
    with pytest.raises(StackError, match="Cannot load the data set no/such: FileNotFoundError: not on the hub"):
        list(tasks_of(plan("hf:no/such")))


def test_without_the_package_of_hugging_face_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StackError, match="`pip install datasets`"):
        list(tasks_of(plan("hf:openai/gsm8k")))


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0, 10, 100_000, 600_000, 2_000_000]), max_size=30))
def test_batches_keep_order_and_stay_within_their_bounds(sizes: list[int]) -> None:
    tasks = [{"task_id": str(n), "input": "x" * size} for n, size in enumerate(sizes)]
    found = list(batches(tasks))
    assert [task for batch in found for task in batch] == tasks
    for batch in found:
        assert 0 < len(batch) <= BATCH_TASKS
        assert len(batch) == 1 or sum(len(json.dumps(task)) for task in batch) <= BATCH_BYTES


def test_a_task_that_is_too_big_for_any_request_is_named() -> None:
    with pytest.raises(StackError, match=r"Task big has \d+ bytes"):
        list(batches([{"task_id": "big", "input": "x" * (5 << 20)}]))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def test_a_dry_run_prints_the_first_tasks_and_asks_no_gateway(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    done = run("enqueue", source, "--input-column", "question", "--metadata-columns", "answer, level", "--dry-run",
               "--samples", 4, "--retry-on", "infrastructure", "--backoff", 2)  # fmt: skip
    assert done.exit_code == 0, done.output
    tasks = [json.loads(line) for line in done.output.splitlines()]
    assert len(tasks) == 3
    assert (tasks[0]["metadata"], tasks[0]["samples"]) == ({"answer": 1, "level": "easy"}, 4)
    assert tasks[0]["retry"] == {"backoff_s": 2.0, "on": ["infrastructure"]}
    TasksBody.model_validate({"tasks": tasks})


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("enqueue", ["--input-column", "--metadata-columns", "--id-column", "--samples", "--mode", "--name", "--split",
                     "--priority", "--max-attempts", "--backoff", "--retry-on", "--skip", "--limit", "--dry-run"]),
        ("cancel", ["--tasks", "--reason", "--gateway", "--api-key"]),
        ("pause", ["--project", "--reason"]),
        ("resume", ["--project"]),
        ("errors", ["--since", "--group-by", "--class", "--show", "--json", "--data-dir"]),
    ],
)  # fmt: skip
def test_help_names_every_option(command: str, options: list[str]) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert [option for option in options if option not in done.output] == []


def test_steering_the_queue_says_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    answers: dict[str, dict[str, Any]] = {
        "tasks/cancel": {"tasks": [{"task_id": "t", "rollouts": 4, "cancelled": 3}]},
        "rollouts/cancel": {"rollouts": [{"rollout_id": "r", "cancelled": False}]},
        "queue/pause": {"project": None, "paused": True},
        "queue/resume": {"project": "p", "paused": False},
    }

    def post(self: TaskQueue, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append((path, body))
        return answers[path]

    monkeypatch.setattr(TaskQueue, "post", post)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    at = ("--gateway", "http://g", "--api-key", "k")
    assert "t: 3 of 4 rollouts cancelled" in run("cancel", "t", "--tasks", "--reason", "wrong", *at).output
    rollout = rollout_id_of("t", 0)
    assert "r: had already ended" in run("cancel", f"{rollout}0002", rollout, *at).output
    assert "neither a rollout id" in run("cancel", "t", *at).output
    assert "paused: all projects" in run("pause", *at).output
    assert "resumed: p" in run("resume", "--project", "p", *at).output
    assert asked == [
        ("tasks/cancel", {"task_ids": ["t"], "reason": "wrong"}),
        ("rollouts/cancel", {"rollout_ids": [rollout], "reason": ""}),
        ("queue/pause", {"project": None, "reason": ""}),
        ("queue/resume", {"project": "p"}),
    ]
