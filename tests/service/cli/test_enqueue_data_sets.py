"""`leyden enqueue hf:…` with Hugging Face's own library, which starts a process when it is imported."""

from pathlib import Path

import pytest

from enqueue_support import ROWS, TaskGateway, plan, queue_of, quiet
from leyden.cli.enqueueing import enqueue


def folder_of(tmp_path: Path, form: str) -> Path:
    """`ROWS` as a data set on disk, in one of the forms that Hugging Face's own library writes and reads."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    made, folder = Dataset.from_list(ROWS), tmp_path / "sums"
    folder.mkdir()
    match form:
        case "parquet":
            made.to_parquet(folder / "train-00000-of-00001.parquet")
        case "jsonl":
            made.to_json(folder / "train.jsonl")
        case "saved":
            made.save_to_disk(folder)
        case "saved splits":
            DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("form", ["parquet", "jsonl", "saved", "saved splits"])
def test_a_data_set_on_disk_is_enqueued_as_the_real_library_reads_it(tmp_path: Path, form: str) -> None:
    gateway = TaskGateway()
    done = enqueue(plan(f"hf:{folder_of(tmp_path, form)}", metadata_columns=["*"]), queue_of(gateway), quiet)
    assert (done.tasks, done.known) == (5, 0)
    assert [(task["input"], task["metadata"]) for task in gateway.tasks.values()] == [
        (row["question"], {"answer": row["answer"], "level": row["level"]}) for row in ROWS
    ]
    assert all(task_id.startswith("sums/train:") for task_id in gateway.tasks)
