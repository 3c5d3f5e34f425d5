"""From the caller's request to the engine's: what is added, what is overridden, and how the answer will be sampled.

Every sampling parameter is sent explicitly, so that no default of an engine (a model's generation_config, say) can
change what was sampled without being recorded. Unknown fields pass through.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from leyden.events import Sampling
from leyden.gateway.core.refusals import Refusal

JsonDict = dict[str, Any]

NEUTRAL: JsonDict = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What is sent where the caller gave nothing: sampling from the model's own distribution."""
TRUNCATING = ("top_p", "top_k", "min_p")


class TruncatedSampling(StrEnum):
    """What happens to top_p < 1, top_k > 0 and min_p > 0 in a training rollout, whose logprobs they would bias."""

    REFUSE = "refuse"
    """400, saying which parameter to leave out."""
    OVERRIDE = "override"
    """Sampled without it; the reply's `x-leyden-overridden` header names it."""
    ALLOW = "allow"
    """Sampled as asked, and recorded."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What the caller asked to see; the rest of what the engine returns for the record is taken out."""

    logprobs: bool = False
    token_ids: bool = False
    usage_chunk: bool = False
    prompt_logprobs: bool = False
    kv_transfer_params: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, ready for an engine but for its `model`."""

    body: JsonDict
    model: str
    streamed: bool
    choices: int
    sampling: Sampling
    visible: Visible
    overridden: tuple[str, ...] = ()


def prepare(request: JsonDict, training: bool, truncated: TruncatedSampling) -> Prepared:
    """What to send for `request`. Raises a 400 `Refusal` when it cannot be sampled the way it asks to be."""
    given = {name: value for name, value in request.items() if value is not None}
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "missing_model", "`model` must name a policy", param="model")
    overridden = tuple(name for name in TRUNCATING if training and _truncates(name, given.get(name)))
    if overridden and truncated is TruncatedSampling.REFUSE:
        raise _truncation_refused(overridden)
    if truncated is TruncatedSampling.ALLOW:
        overridden = ()
    body = NEUTRAL | {name: value for name, value in given.items() if name not in overridden}
    body |= {"return_token_ids": True, "logprobs": True}
    streamed = given.get("stream") is True
    options = given.get("stream_options")
    if streamed:
        body["stream_options"] = (options if isinstance(options, dict) else {}) | {"include_usage": True}
    count = given.get("n")
    return Prepared(
        body, model, streamed, count if isinstance(count, int) else 1, sampling_of(body), _visible(given), overridden
    )


def sampling_of(body: JsonDict) -> Sampling:
    """The sampling parameters of a body as they will be recorded; a disabled top_k is -1 whatever it was called."""
    top_k = _whole(body.get("top_k"))
    return Sampling(
        temperature=_number(body, "temperature", 1.0),
        top_p=_number(body, "top_p", 1.0),
        top_k=top_k if top_k and top_k > 0 else -1,
        min_p=_number(body, "min_p", 0.0),
        presence_penalty=_number(body, "presence_penalty", 0.0),
        frequency_penalty=_number(body, "frequency_penalty", 0.0),
        repetition_penalty=_number(body, "repetition_penalty", 1.0),
        seed=_whole(body.get("seed")),
        max_tokens=_whole(body.get("max_completion_tokens", body.get("max_tokens"))),
    )


def _visible(given: JsonDict) -> Visible:
    options = given.get("stream_options")
    return Visible(
        logprobs=given.get("logprobs") is True,
        token_ids=given.get("return_token_ids") is True,
        usage_chunk=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_logprobs="prompt_logprobs" in given,
        kv_transfer_params="kv_transfer_params" in given,
    )


def _truncates(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False  # the engine refuses it in its own words
    return value < 1 if name == "top_p" else value > 0


def _truncation_refused(names: tuple[str, ...]) -> Refusal:
    what = " and ".join(names)
    message = f"{what} cut off the distribution that is trained: leave them out in training rollouts (mode train)"
    return Refusal(400, "truncated_sampling", message, param=names[0])


def _number(body: JsonDict, name: str, default: float) -> float:
    value = body.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
