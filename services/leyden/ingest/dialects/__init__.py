"""The dialects, in the order in which they are asked; the last takes everything.

A new one is a module here with a class that satisfies `Dialect`, and a line in this list. Those that add to the GenAI
conventions are asked before them.
"""

from leyden.ingest.core.dialect import Dialect
from leyden.ingest.dialects.agentops import AgentOps
from leyden.ingest.dialects.evidence import Evidence
from leyden.ingest.dialects.flat import Flat
from leyden.ingest.dialects.gen_ai import GenAi
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
    Flat(),
    GenAi(),
    Evidence(),
    Other(),
)

__all__ = ["DIALECTS"]
