"""ARCHITECTURE.md's "Where do I add …": its paths, tests and entry point groups exist, and closed lists stay closed."""

import ast
import re
from typing import get_args

import pytest

from leyden import failures
from leyden.events import FailureClass
from leyden.trainer.core.step_metrics import StepMetric
from roots import ROOT, SOURCE_ROOTS

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
SECTION = ARCHITECTURE.split("## Where do I add …")[1].split("\n## ")[0]
ROWS = {cells[1].strip(): cells for cells in (row.split("|") for row in SECTION.splitlines()) if len(cells) == 6}
THINGS = [name for name in ROWS if name and not name.startswith("-")]
PATH = re.compile(r"`((?:[a-z_.-]+/)+(?:[a-z_.-]+)?|[a-z_-]+\.(?:py|yml|md))`")
OF_EACH_SERVICE = {"topology.py", "metrics.py", "settings.py"}
METERS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
SOURCES = [(path, path.read_text()) for root in SOURCE_ROOTS for path in root.rglob("*.py")]


def test_it_answers_for_everything_that_is_added_often() -> None:
    wanted = (
        "a reward rule", "a grader", "a judge", "a credit strategy", "an advantage", "an objective", "a topic",
        "an event", "a training metric", "a Prometheus metric", "a span dialect", 'a model API ("face")', "a route",
        "a command", "a setting", "a failure class", "a service",
    )  # fmt: skip
    assert tuple(THINGS) == wanted


@pytest.mark.parametrize("thing", THINGS)
def test_the_steps_and_the_test_of_a_row_exist(thing: str) -> None:
    _, _, steps, _, checked, _ = ROWS[thing]
    places = [ROOT, *(root / "leyden" for root in SOURCE_ROOTS)]
    for path in (*PATH.findall(steps), *PATH.findall(checked)):
        if path not in OF_EACH_SERVICE:
            assert any((place / path).exists() for place in places), path
    assert PATH.search(checked)


def test_its_entry_point_groups_are_those_of_the_code() -> None:
    named = set(re.findall(r"`(leyden\.[a-z_]+)`", SECTION))
    in_code = {
        group for _, text in SOURCES for group in re.findall(r'Extensions(?:\[[^(]*\])?\(\s*"\w+", "(.+?)"', text)
    }
    assert named == in_code


def test_a_failure_class_is_the_same_for_clients_events_and_readers() -> None:
    assert set(get_args(failures.FailureClass)) == {str(one) for one in FailureClass}
    documented = set(re.findall(r"^\| `([a-z_]+)` ", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert documented == {str(one) for one in FailureClass}


def test_every_training_metric_is_computed() -> None:
    used = {
        name for path, text in SOURCES if "trainer" in path.parts for name in re.findall(r"StepMetric\.(\w+)", text)
    }
    assert {metric.name for metric in StepMetric} - used == set()


def test_prometheus_metrics_are_made_in_metrics_modules_only_and_begin_with_their_service() -> None:
    for path, text in SOURCES:
        tree = list(ast.walk(ast.parse(text)))
        kinds = {
            a.name for n in tree if isinstance(n, ast.ImportFrom) and n.module == "prometheus_client" for a in n.names
        }
        made = [
            n for n in tree if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in kinds & METERS
        ]
        assert not made or path.name == "metrics.py", f"{path.relative_to(ROOT)} makes metrics of its own"
        for one in made if path.is_relative_to(ROOT / "services") else ():
            name = ast.literal_eval(one.args[0])
            assert name.startswith(f"leyden_{path.parent.name}_"), name
