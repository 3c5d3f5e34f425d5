"""Comparing the training of a replay with the recorded one, and how it is told."""

from pathlib import Path

import pytest

from leyden.replay.training import TrainedStep, Training, compare_training


def training(folder: Path, *steps: tuple[str, str], optimiser: str = "o") -> Training:
    """Steps of (groups, weights); the last one's checkpoint is on disk."""
    last = folder / "step"
    last.mkdir(parents=True)
    (last / "optimiser.safetensors").write_text(optimiser)
    (last / "state.json").write_text(str(folder))
    return {
        ("policy", version): TrainedStep(tuple(groups), weights, last if version == len(steps) else folder / "pruned")
        for version, (groups, weights) in enumerate(steps, 1)
    }


def test_the_same_batches_and_weights_are_identical(tmp_path: Path) -> None:
    found = compare_training(
        training(tmp_path / "a", ("ab", "1"), ("cd", "2")), training(tmp_path / "b", ("ab", "1"), ("cd", "2"))
    )
    assert found.identical
    assert found.lines() == [
        "batches: identical, 2 of 2 steps",
        "weights: identical, 2 of 2 steps",
        "optimiser and random state of the last step: identical",
    ]


@pytest.mark.parametrize(
    ("again", "lines"),
    [
        ([("ab", "1"), ("dc", "2")], ["batches: different from step 2 of 2 on", "weights: identical, 2 of 2 steps"]),
        ([("ab", "9"), ("cd", "2")], ["batches: identical, 2 of 2 steps", "weights: different from step 1 of 2 on"]),
        ([("ab", "1")], ["batches: different from step 2 of 2 on", "weights: different from step 2 of 2 on"]),
        ([], ["batches: different from step 1 of 2 on", "weights: different from step 1 of 2 on"]),
    ],
)
def test_the_first_step_that_differs_is_named(tmp_path: Path, again: list[tuple[str, str]], lines: list[str]) -> None:
    found = compare_training(training(tmp_path / "a", ("ab", "1"), ("cd", "2")), training(tmp_path / "b", *again))
    assert not found.identical
    assert found.lines()[:2] == lines


def test_another_optimiser_is_another_training(tmp_path: Path) -> None:
    found = compare_training(
        training(tmp_path / "a", ("ab", "1")), training(tmp_path / "b", ("ab", "1"), optimiser="p")
    )
    assert not found.identical
    assert found.lines()[-1] == "optimiser and random state of the last step: different"


def test_a_checkpoint_that_is_gone_is_not_compared(tmp_path: Path) -> None:
    recorded = training(tmp_path / "a", ("ab", "1"))
    (tmp_path / "a" / "step" / "optimiser.safetensors").unlink()
    (tmp_path / "a" / "step" / "state.json").unlink()
    (tmp_path / "a" / "step").rmdir()
    found = compare_training(recorded, training(tmp_path / "b", ("ab", "1")))
    assert found.identical
    assert len(found.lines()) == 2


def test_steps_beyond_the_recorded_ones_are_not_compared(tmp_path: Path) -> None:
    more = training(tmp_path / "b", ("ab", "1"), ("cd", "2"))
    found = compare_training(training(tmp_path / "a", ("ab", "1")), more)
    assert (found.identical, found.same_weights, found.same_state) == (True, 1, None)
    assert compare_training({}, more).lines() == ["no recorded steps to compare the training with"]
