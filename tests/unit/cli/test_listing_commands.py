"""`leyden rollouts`, `models list`, `replay list`: what they list, and that an id is never cut."""

import json
from collections.abc import Sequence
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import command_support as s
from leyden.analysis.rollouts import Rollouts, RolloutStatus, SeenRollout
from leyden.cli.formatting import print_columns
from leyden.cli.listing import Filter, as_document
from leyden.events import Failure, FailureClass, Task
from leyden.ids import rollout_id_of
from leyden.replay.past import past_replays


def shown(heads: Sequence[str], rows: Sequence[Sequence[object]], width: int, **options: Any) -> str:
    text = StringIO()
    print_columns(heads, rows, Console(file=text, width=width), **options)
    return text.getvalue()


IDS = st.lists(
    st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1, max_size=60), min_size=1
)


@given(IDS, st.integers(10, 200))
def test_no_cell_is_ever_cut(ids: list[str], width: int) -> None:
    text = shown(("id", "n"), [(one, 1) for one in ids], width)
    assert [line.split("  ")[0].rstrip() for line in text.splitlines()[1:]] == ids


def test_columns_are_aligned() -> None:
    assert shown(("id", "n"), [("a", 1), ("bcd", 20)], 80, right=("n",)) == "id    n\na     1\nbcd  20\n"


def rollouts() -> dict[str, SeenRollout]:
    seen = Rollouts()
    failure = Failure(failure_class=FailureClass.TIMEOUT, message="search took 30 s")
    lost = rollout_id_of("lost", 0)
    held = rollout_id_of("held", 0)
    about = {"group_id": "held", "task": Task(task_id="held", mode="validation")}
    events = [
        *s.life(s.A, s.calls_of_a(), 1.0),
        *s.life(s.B, [s.call_of_b()], 0.25),
        s.started(lost),
        s.ended(lost, [], status="failed", failure=failure),
        s.ended(held, [], event_time=s.T0 + timedelta(minutes=1), **about),
        s.started(rollout_id_of("running", 0)),
    ]
    for event in events:
        seen.see(event)
    names = {s.A: "a", s.B: "b", lost: "lost", held: "held", rollout_id_of("running", 0): "running"}
    return {names[one.rollout_id]: one for one in seen}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), {"a", "b", "lost", "held", "running"}),
        (Filter(mode="validation"), {"held"}),
        (Filter(statuses=frozenset({RolloutStatus.FAILED, RolloutStatus.RUNNING})), {"lost", "running"}),
        (Filter(version="p@3"), {"a", "b"}),
        (Filter(version="3"), {"a", "b"}),
        (Filter(version="4"), set()),
        (Filter(min_reward=0.5), {"a"}),
        (Filter(max_reward=0.5), {"b"}),
        (Filter(error="timeout"), {"lost"}),
        (Filter(error="SEARCH took"), {"lost"}),
        (Filter(task="held"), {"held"}),
        (Filter(task=s.GROUP, max_reward=0.5), {"b"}),
    ],
)
def test_every_condition_of_a_filter_must_hold(wanted: Filter, expected: set[str]) -> None:
    assert {name for name, one in rollouts().items() if wanted.takes(one)} == expected


def test_a_rollout_as_json_has_the_ids_and_why_it_failed() -> None:
    found = rollouts()
    lost = as_document(found["lost"])
    assert (lost["status"], lost["failure_class"], lost["message"]) == ("failed", "timeout", "search took 30 s")
    good = as_document(found["a"])
    assert good["trace_id"] == f"{s.A}0000"
    assert (good["reward"], good["versions"], good["calls"]) == (1.0, ["p@3"], 2)
    assert json.loads(json.dumps(good)) == good


def test_replays_are_listed_with_their_result_and_failed_ones_last(tmp_path: Path) -> None:
    for name, identical in (("again", True), ("shaped", False)):
        folder = tmp_path / "replays" / name
        folder.mkdir(parents=True)
        compared = {"identical": identical, "same": 3, "different": 1, "only_recorded": 0, "only_replayed": 0}
        report = {"comparison": compared, "training": None, "versions": [{"policy": "p", "version": 4}]}
        (folder / "report.json").write_text(json.dumps(report))
    (tmp_path / "replays" / "broken").mkdir()
    found = past_replays(tmp_path)
    assert [(one.name, one.result, one.events, one.candidate) for one in sorted(found, key=lambda one: one.name)] == [
        ("again", "identical", 4, "p@4"),
        ("broken", "failed or unfinished", None, None),
        ("shaped", "different", 4, "p@4"),
    ]
    assert found[-1].name == "broken"
    assert past_replays(tmp_path / "none") == []
