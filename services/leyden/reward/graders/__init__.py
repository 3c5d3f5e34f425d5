"""The built-in graders, one class each. A class's fields are its parameters in the run file.

A package adds one with an entry point of group `leyden.graders`, whose name is used as `grader` in the run file.
"""

from leyden.extensions import Extensions, subclass_of
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
"""The built-in graders: `grader` in the run file's `functions:` list → its class."""
_KNOWN = Extensions("grader", "leyden.graders", GRADERS, subclass_of(Grader), "a subclass of Grader")


def grader_of(name: str) -> type[Grader]:
    """The class of grader `name`, built in or from a package. Raises ValueError if there is no usable one."""
    return _KNOWN.find(name)


__all__ = ["GRADERS", "BrokenReferenceError", "Grader", "grader_of"]
