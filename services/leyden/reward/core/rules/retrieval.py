"""AIR rule `retrieval`: did a search find anything, and anything new?"""

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from leyden.events import Evidence, Json, JsonObject, SpanKind, SpanRecorded
from leyden.reward.core.json_values import canonical, parsed
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView

DOCUMENTS = ("gen_ai.retrieval.documents", "retrieval.documents")
"""Attributes with the documents found: of the GenAI conventions and of OpenInference."""
RESULT_LISTS = ("documents", "results", "hits", "items", "matches")
"""Keys with the documents, if a tool's result is an object."""
ROWS = "db.response.returned_rows"
_FLAT = re.compile(r"retrieval\.documents\.(\d+)\.document\.(\w+)")
"""OpenInference writes one attribute per field of a document."""
_SCORES = frozenset({"score", "distance", "rank"})
"""Fields with a document's score, which do not identify the document."""


class Retrieval(IntermediateRule):
    """Gives a signal per retrieval that found nothing, found nothing new, or (if `found` is set) found something new.

    Retrievals are the spans of that kind; with the filter `tool`, the tool calls that pass it. A span without its
    results gives no signal. Nothing new means that earlier retrievals found all its documents.
    """

    rule: Literal["retrieval"] = "retrieval"
    name: str = "retrieval"
    found: float | None = Field(default=None, allow_inf_nan=False)
    """Value for finding something new; null: no signal. Rewarding searches teaches the agent to search."""
    empty: float | None = Field(default=-0.1, allow_inf_nan=False)
    repeated: float | None = Field(default=-0.1, allow_inf_nan=False)
    empty_text: str = r"(?i)no (results?|matches|documents?)( (were )?found)?\.?"
    """A regular expression. If a tool's whole text result matches it, nothing was found."""

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        known: set[str] = set()
        for span in self._retrievals(view):
            if (documents := self._documents(span)) is None:
                continue
            value = self.empty if not documents else self.repeated if documents <= known else self.found
            known |= documents
            if value is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(value, evidence, call_id=view.call_that_asked(span))

    def _retrievals(self, view: RolloutView) -> Iterable[SpanRecorded]:
        if self.tool:
            return [span for span in view.span_index.tools if span.tool is not None and self.wants_tool(span.tool.name)]
        return [span for span in view.spans if span.kind is SpanKind.RETRIEVAL]

    def _documents(self, span: SpanRecorded) -> set[str] | None:
        """The documents found, each as a text that identifies it; None if the span does not list them."""
        found = span.retrieval.documents if span.retrieval is not None else None
        if found is None:
            found = _listed(span.attributes)
        if found is None and span.tool is not None:
            found = self._in_result(span.tool.result)
        if found is None and (rows := span.attributes.get(ROWS)) is not None:
            return set() if rows in (0, "0") else {f"rows of {span.event_id}"}
        return None if found is None else {_identity(document) for document in found}

    def _in_result(self, result: Json) -> list[Json] | None:
        is_json, value = parsed(result) if isinstance(result, str) else (True, result)
        if isinstance(result, str) and (not is_json or isinstance(value, str)):
            text = str(value) if is_json else result
            return [] if not text.strip() or re.fullmatch(self.empty_text, text.strip()) else [text]
        if isinstance(value, dict):
            return next((list(inner) for key in RESULT_LISTS if isinstance(inner := value.get(key), list)), None)
        return list(value) if isinstance(value, list) else None

    @model_validator(mode="after")
    def _text_is_an_expression(self) -> "Retrieval":
        try:
            re.compile(self.empty_text)
        except re.error as error:
            raise ValueError(f"empty_text: {error}") from error
        return self


def _listed(attributes: JsonObject) -> list[Json] | None:
    """The documents in a span's attributes, as a list or flattened."""
    for key in DOCUMENTS:
        value = attributes.get(key)
        listed = parsed(value)[1] if isinstance(value, str) else value
        if isinstance(listed, list):
            return [parsed(item)[1] or item if isinstance(item, str) else item for item in listed]
    flat: dict[int, JsonObject] = {}
    for key, value in attributes.items():
        if (field := _FLAT.fullmatch(key)) is not None:
            flat.setdefault(int(field.group(1)), {})[field.group(2)] = value
    return list(flat.values()) or None


def _identity(document: Json) -> str:
    """The document's id if it has one, else its content."""
    inner = document.get("document") if isinstance(document, dict) else None
    body = inner if isinstance(inner, dict) else document
    if not isinstance(body, dict):
        return canonical(body)
    if (id_ := body.get("id")) is not None:
        return f"id {canonical(id_)}"
    return canonical({key: value for key, value in body.items() if key not in _SCORES})
