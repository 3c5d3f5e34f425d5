"""Grader `retrieval_overlap`: compares retrieved documents (or the words of a text) with a reference."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from leyden.events import Json, SpanKind, SpanRecorded
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import BrokenReferenceError, Grader, as_text, at

DOCUMENTS = ("gen_ai.retrieval.documents", "retrieval.documents", "documents")
"""Attributes of a retrieval span with a list of documents (or its JSON)."""
_FLAT = re.compile(r"retrieval\.documents\.(\d{1,6})\.document\.id")
_ID_KEYS = ("id", "document_id", "doc_id", "document.id")
_WORD = re.compile(r"\w+")


class RetrievalOverlap(Grader):
    """Precision, recall, F1 or nDCG (0 to 1) of the found items against the reference."""

    isolated: ClassVar[bool] = False
    grader: Literal["retrieval_overlap"] = "retrieval_overlap"
    answer: str = "metadata.documents"
    """Path of the reference: a list of ids (for nDCG also a mapping of ids to gains); with `of: words` a text."""
    of: Literal["spans", "given", "words"] = "spans"
    """`spans`: documents of the rollout's retrieval spans, in order of first appearance. `given`: a list of ids in the
    answer. `words`: the words of the answer's text, repetitions included."""
    metric: Literal["f1", "precision", "recall", "ndcg"] = "f1"
    k: int | None = Field(default=None, ge=1)
    """Only the first `k` found items count; null: all."""

    def __call__(self, view: RolloutView) -> float | None:
        if (reference := at(view, self.answer)) is None:
            return None
        gains = self._gains(reference)
        found = self._found(view)[: self.k]
        if self.metric == "ndcg":
            return _ndcg(found, gains, self.k)
        wanted = Counter(_words(as_text(reference) or "")) if self.of == "words" else Counter(gains.keys())
        return _overlap(Counter(found), wanted, self.metric)

    def _gains(self, reference: Json) -> dict[str, float]:
        if self.of == "words":
            gains = dict.fromkeys(_words(as_text(reference) or ""), 1.0)
        elif isinstance(reference, dict):
            gains = {key: float(v) for key, v in reference.items() if isinstance(v, int | float) and v > 0}
        else:
            gains = dict.fromkeys(_ids(reference if isinstance(reference, list) else [reference]), 1.0)
        if not gains:
            raise BrokenReferenceError("the reference is empty")
        return gains

    def _found(self, view: RolloutView) -> list[str]:
        if self.of == "words":
            return _words(as_text(at(view, self.given)) or "")
        if self.of == "given":
            given = _parsed(at(view, self.given))
            return list(dict.fromkeys(_ids(given if isinstance(given, list) else [given])))
        spans = [span for span in view.spans if span.kind is SpanKind.RETRIEVAL]
        return list(dict.fromkeys(id_ for span in spans for id_ in documents_of(span)))


def documents_of(span: SpanRecorded) -> list[str]:
    """Ids of the documents of a retrieval span, best first."""
    if span.retrieval is not None and span.retrieval.documents is not None:
        return _ids(span.retrieval.documents)
    for name in DOCUMENTS:
        if isinstance(listed := _parsed(span.attributes.get(name)), list):
            return _ids(listed)
    flat = [(int(match[1]), value) for key, value in span.attributes.items() if (match := _FLAT.fullmatch(key))]
    return _ids(value for _, value in sorted(flat, key=lambda item: item[0]))


def _overlap(found: Counter[str], wanted: Counter[str], metric: str) -> float:
    common = (found & wanted).total()
    if common == 0:
        return 0.0
    precision, recall = common / found.total(), common / wanted.total()
    return {"precision": precision, "recall": recall}.get(metric, 2 * precision * recall / (precision + recall))


def _ndcg(found: Sequence[str], gains: dict[str, float], k: int | None) -> float:
    """The nDCG of Järvelin and Kekäläinen, with gain / log2(rank + 1). Only the first position of a document counts."""
    best = _dcg(sorted(gains.values(), reverse=True)[:k])
    return _dcg([gains.get(id_, 0.0) for id_ in dict.fromkeys(found)]) / best


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


def _ids(documents: Iterable[Json]) -> list[str]:
    found: list[str] = []
    for document in documents:
        value: Json = document
        if isinstance(document, dict):
            value = next((document[key] for key in _ID_KEYS if key in document), None)
        if isinstance(value, str | int) and not isinstance(value, bool):
            found.append(str(value))
    return found


def _parsed(value: Json) -> Json:
    """Decode a string that holds JSON; any other string is unchanged."""
    if not isinstance(value, str):
        return value
    try:
        parsed: Json = json.loads(value)
    except ValueError:
        return value
    return parsed


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
