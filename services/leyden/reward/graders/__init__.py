"""Graders ready made: a small file with a class each, whose fields are its parameters in the run file."""

from leyden.reward.graders.base import BrokenReferenceError, Grader
from leyden.reward.graders.exact_match import ExactMatch
from leyden.reward.graders.numeric import Numeric
from leyden.reward.graders.retrieval_overlap import RetrievalOverlap
from leyden.reward.graders.sql_result import SqlResult
from leyden.reward.graders.unit_tests import UnitTests

GRADERS: dict[str, type[Grader]] = {
    "exact_match": ExactMatch,
    "numeric": Numeric,
    "sql_result": SqlResult,
    "unit_tests": UnitTests,
    "retrieval_overlap": RetrievalOverlap,
}
"""`grader` in the run file's `functions:` list → its class."""

__all__ = ["GRADERS", "BrokenReferenceError", "Grader"]
