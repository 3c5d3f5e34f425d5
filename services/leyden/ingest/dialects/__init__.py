"""The dialects, in the order in which they are tried. The last one accepts every span.

To add a dialect, add a module here with a class that implements `Dialect`, and list it below. Dialects that extend the
GenAI conventions come before them. A package adds one with an entry point of the group `leyden.dialects`: a class that
is made without arguments. Those are tried before the built-in ones, in the order of their names.
"""

from leyden.extensions import Extensions, installed
from leyden.ingest.core.dialect import Dialect
from leyden.ingest.dialects.adk import Adk
from leyden.ingest.dialects.agentops import AgentOps
from leyden.ingest.dialects.ai_sdk import AiSdk
from leyden.ingest.dialects.evidence import Evidence
from leyden.ingest.dialects.flat import Flat
from leyden.ingest.dialects.gen_ai import GenAi
from leyden.ingest.dialects.haystack import Haystack
from leyden.ingest.dialects.langsmith import LangSmith
from leyden.ingest.dialects.logfire import Logfire
from leyden.ingest.dialects.mcp import Mcp
from leyden.ingest.dialects.openinference import OpenInference
from leyden.ingest.dialects.other import Other
from leyden.ingest.dialects.traceloop import Traceloop

DIALECTS: tuple[Dialect, ...] = (
    OpenInference(),
    LangSmith(),
    AgentOps(),
    Mcp(),
    Traceloop(),
    Logfire(),
    AiSdk(),
    Adk(),
    Haystack(),
    Flat(),
    GenAi(),
    Evidence(),
    Other(),
)

_METHODS = ("recognises", "meaning", "evaluations")


def _is_dialect(found: object) -> bool:
    return isinstance(found, type) and all(callable(getattr(found, method, None)) for method in _METHODS)


_KNOWN = Extensions[type[Dialect]](
    "dialect", "leyden.dialects", {dialect.name: type(dialect) for dialect in DIALECTS}, _is_dialect, "a Dialect class"
)


def known_dialects() -> tuple[Dialect, ...]:
    """Every dialect in the order in which it is tried; raises ExtensionError for a package's that cannot be used."""
    return (*(_KNOWN.find(name)() for name in installed("leyden.dialects")), *DIALECTS)


__all__ = ["DIALECTS", "known_dialects"]
