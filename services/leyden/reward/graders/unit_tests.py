"""Grader `unit_tests`: runs the task's tests on the answer's Python code in other processes (`confined.harness`)."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from leyden.events import Json
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import BrokenReferenceError, Grader, at, code_in

HARNESS = Path(__file__).parent / "confined" / "harness.py"
SPARE_S = 10.0
"""Time allowed in addition to `time_s` for starting the harness and ending the last test."""


class UnitTests(Grader):
    """The fraction of tests that pass; or 1.0 if all pass, else 0.0.

    Code that does not parse, raises, loops or exits passes no test. If the tests do not parse, the grader fails, which
    is not a reward of 0.
    """

    grader: Literal["unit_tests"] = "unit_tests"
    answer: str = "metadata.tests"
    """Path of the tests: a list of pieces of code, each a test; or one text, whose functions `test_…` are the tests,
    or which has `check(candidate)` (then `entry_point` names the candidate), or else is a single test."""
    entry_point: str = "metadata.entry_point"
    reward: Literal["fraction", "all"] = "fraction"
    case_s: float = Field(default=2.0, ge=1)
    """CPU time limit of one test, whole seconds. The limit on wall-clock time is twice that."""
    time_s: float = Field(default=10.0, gt=0)
    """Wall-clock limit for all tests together. Tests not finished by then have not passed."""
    case_memory_mb: int = Field(default=512, ge=64)
    """Address space limit of one test's process."""
    site_packages: bool = False
    """Whether installed packages can be imported, in addition to the standard library."""

    @property
    def longest_s(self) -> float:
        return self.time_s + SPARE_S

    def __call__(self, view: RolloutView) -> float | None:
        if (tests := at(view, self.answer)) is None:
            return None
        cases = _cases(tests, at(view, self.entry_point))
        given = at(view, self.given)
        if not isinstance(given, str):
            return 0.0
        passed = self._run(code_in(given), cases)
        return sum(passed) / len(passed) if self.reward == "fraction" else float(all(passed))

    def _run(self, code: str, cases: list[dict[str, str]]) -> list[bool]:
        job = {"code": code, "cases": cases} | self.model_dump(include={"case_s", "time_s", "case_memory_mb"})
        done = subprocess.run(
            [sys.executable, "-P", "-s", "-B", *([] if self.site_packages else ["-S"]), str(HARNESS)],
            input=json.dumps(job).encode(),
            env={"PATH": os.defpath, "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
            timeout=self.longest_s,
        )
        passed: list[bool] = json.loads(done.stdout)
        return passed


def _cases(tests: Json, entry_point: Json) -> list[dict[str, str]]:
    """The code of each test, to run after the answer. Raises `BrokenReferenceError` if it is not valid Python."""
    if isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests):
        for test in tests:
            _parsed(str(test))
        return [{"source": str(test), "call": ""} for test in tests]
    if not isinstance(tests, str) or not tests.strip():
        raise BrokenReferenceError("the task's tests are neither a string nor a list of strings")
    names = [node.name for node in _parsed(tests).body if isinstance(node, ast.FunctionDef)]
    if calls := [f"{name}()" for name in names if name.startswith("test")]:
        return [{"source": tests, "call": call} for call in calls]
    if "check" in names:
        if not isinstance(entry_point, str) or not entry_point.isidentifier():
            raise BrokenReferenceError("the tests have check(candidate), but the task has no entry_point")
        return [{"source": tests, "call": f"check({entry_point})"}]
    return [{"source": tests, "call": ""}]


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise BrokenReferenceError(f"the task's tests are no Python: {error}") from error
