"""The dialects, in the order in which they are tried. The last one accepts every span.

To add a dialect, add a module here with a class that implements `Dialect`, and list it below. Dialects that extend the
GenAI conventions come before them.
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
