"""Model calls whose messages are flattened: `gen_ai.prompt.{i}.role`, `gen_ai.completion.{i}.content`.

OpenLLMetry wrote them before it moved to the conventions' JSON attributes; AgentOps still does. Otherwise these spans
follow the conventions.
"""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import finish_reasons_of, of_flat
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import text, unflattened
from leyden.ingest.dialects import gen_ai, names

PROMPTS, COMPLETIONS = "gen_ai.prompt.", "gen_ai.completion."
REQUEST_TYPES = ("llm.request.type", "gen_ai.request.type")
_MARKS = frozenset({"gen_ai.prompt.0.role", "gen_ai.prompt.0.content", "gen_ai.completion.0.content", *REQUEST_TYPES})
_MODEL_REQUESTS = frozenset({"chat", "completion", "embedding", "embeddings", "rerank"})


class Flat:
    """Model calls with flattened messages, or with a request type attribute."""

    name = "gen_ai_flat"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        return read(span)

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def read(span: RawSpan, kind: SpanKind | None = None) -> Meaning:
    """Interpret the conventions' attributes and the flattened messages."""
    attributes = span.attributes
    asked = next((value for name in REQUEST_TYPES if (value := text(attributes.get(name)))), None)
    if kind is None and names.OPERATION not in attributes and (asked in _MODEL_REQUESTS or asked is None):
        kind = SpanKind.LLM_CALL
    meaning = gen_ai.read(span, kind)
    if meaning.llm is None:
        return meaning
    meaning.llm["operation"] = meaning.llm["operation"] or asked
    for prefix, field in ((PROMPTS, "input_messages"), (COMPLETIONS, "output_messages")):
        items, used = unflattened(attributes, prefix)
        if items and not meaning.llm[field]:
            meaning.llm[field] = list(of_flat(items))
            meaning.understood.update(used)
            if field == "output_messages" and not meaning.llm["finish_reasons"]:
                meaning.llm["finish_reasons"] = list(finish_reasons_of(list(items)))
    return meaning
