"""The dialects, in the order in which they are asked; the last takes everything.

A new one is a module here with a class that satisfies `Dialect`, and a line in this list.
"""

from leyden.ingest.core.dialect import Dialect
from leyden.ingest.dialects.gen_ai import GenAi
from leyden.ingest.dialects.other import Other

DIALECTS: tuple[Dialect, ...] = (GenAi(), Other())

__all__ = ["DIALECTS"]
