"""A model call's request: its attempt, and the request to the engine.

Every sampling parameter is sent explicitly, so that no default of an engine (such as a model's generation_config) can
change sampling without being recorded. Unknown fields pass through.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from leyden.engine_face import LEAST_TEMPERATURE
from leyden.events import Sampling
from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.sampling import (
    BEST_OF,
    FLOATS,
    FORMS,
    HARMLESS,
    INTEGERS,
    MAX_NAME,
    MAX_NAMES,
    NEUTRAL,
    NEUTRAL_NUMBERS,
    NEUTRAL_VALUES,
    STRICT,
    SWITCHES,
    WORDS,
    ShapedSampling,
    any_strict,
    loosened,
)
from leyden.ids import AttemptRef, attempt_of_trace, parse_traceparent

MAX_JSON_DEPTH = 100
"""Parsers and encoders on the way to Kafka fail from 200 levels on; real requests have fewer than 40."""
SESSION_HEADER = "x-leyden-rollout"
"""A rollout id (attempt 0) or an attempt's trace id, for clients that can add a header."""
ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class Binding:
    """The attempt of a call. `attempt` None: the call is served and recorded without a rollout."""

    attempt: AttemptRef | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    traceparent: str | None = None
    """The caller's header, if valid."""
    caller: Caller = ANYBODY


def bind(path_id: str | None, caller: Caller, traceparent: str | None, session: str | None = None) -> Binding:
    """The rollout of the URL, else of the key, else of the session header, else of `traceparent`, else none.

    If two disagree, the earlier one counts, as it is more deliberate: a `traceparent` may come from the surroundings.
    A URL or session header of another attempt than a per-rollout key's is refused (403). Raises a 404 or 400 `Refusal`
    for a URL or header that is not a rollout.
    """
    parsed = parse_traceparent(traceparent)
    asked = None
    if path_id is not None:
        asked = _attempt(path_id, 404, "the URL")
    elif session:
        asked = _attempt(session, 400, SESSION_HEADER)
    if asked is not None:
        caller.must_own(asked)
    attempt = asked or caller.attempt
    if attempt is None and parsed:
        attempt = attempt_of_trace(parsed[0])
    trace_id = parsed[0] if parsed else attempt.trace_id if attempt else None
    return Binding(attempt, trace_id, parsed[1] if parsed else None, traceparent if parsed else None, caller)


def _attempt(named: str, status: int, where: str) -> AttemptRef:
    if attempt := attempt_of_trace(named.strip()):
        return attempt
    message = f"{named[:64]!r} in {where} is neither a rollout id nor an attempt's trace id"
    raise Refusal(status, "rollout_not_found", message)


JsonDict = dict[str, Any]

UNTRAINABLE = {
    "echo": "echo puts the prompt into the answer: leave it out in training rollouts (mode train)",
    "prompt": "a training rollout (mode train) completes one prompt a call; `n` gives several completions of it",
    "best_of": "best_of selects among completions, which biases training: use `n` in training rollouts (mode train)",
}


class Api(StrEnum):
    """OpenAI's API that is used at an engine."""

    CHAT = "chat"
    """Messages in, messages out."""
    COMPLETIONS = "completions"
    """A prompt in, a text out."""
    EMBEDDINGS = "embeddings"
    """Vectors out; nothing is sampled."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Fields that the caller asked for; others that the engine returns for the record are removed."""

    logprobs: bool = False
    token_ids: bool = False
    usage_chunk: bool = False
    prompt_logprobs: bool = False
    kv_transfer_params: bool = False
    untouched: bool = False
    """Nothing was added for the record, so nothing is removed but a usage that was not asked for."""


NOTHING = Visible()
ASKS_TO_SEE = frozenset({"logprobs", "return_token_ids", "stream_options", "prompt_logprobs", "kv_transfer_params"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One request for an engine, except its `model`."""

    body: JsonDict
    model: str
    streamed: bool
    choices: int
    sampling: Sampling
    visible: Visible
    overridden: tuple[str, ...] = ()
    """Fields that were not sent, as they shape the distribution that is trained."""
    training: bool = False
    """Whether it is of a training rollout."""
    traced: bool = True
    """Whether the reply must have token ids and logprobs."""


def prepare(request: JsonDict, training: bool, shaped: ShapedSampling, api: Api = Api.CHAT) -> Prepared:
    """The request to send for `request`. Raises a 400 `Refusal` if it may not be sampled as asked."""
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "missing_model", "`model` must name a policy", param="model")
    if api is Api.EMBEDDINGS:
        given = {name: value for name, value in request.items() if value is not None}
        return Prepared(
            body=given, model=model, streamed=False, choices=0, sampling=Sampling(), visible=Visible(), traced=False
        )
    given = as_engines_read(request)
    shaping = shaping_fields(given)
    overridden = overridden_fields(shaping, shaped) if training else ()
    body = NEUTRAL | {name: value for name, value in given.items() if name not in overridden}
    if STRICT in overridden and "tools" in body:
        body["tools"] = loosened(body["tools"])
    count = whole(given.get("n")) or 1
    traced = api is Api.CHAT or _one_prompt(given, training)
    if api is Api.COMPLETIONS:
        count *= len(prompts_of(given))
    if traced:
        body |= {"return_token_ids": True, "logprobs": _most_logprobs(given) if api is Api.COMPLETIONS else True}
    streamed = given.get("stream") is True
    options = given.get("stream_options")
    if streamed:
        body["stream_options"] = (options if isinstance(options, dict) else {}) | {"include_usage": True}
    return Prepared(
        body=body,
        model=model,
        streamed=streamed,
        choices=count,
        sampling=sampling_of(body, () if overridden else shaping),
        visible=_visible(given),
        overridden=told(overridden),
        training=training,
        traced=traced,
    )


def prompts_of(body: JsonDict) -> list[object]:
    """The prompts of a text completion: texts, or lists of token ids."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return prompt
    return [prompt]


def _one_prompt(given: JsonDict, training: bool) -> bool:
    """Whether a text completion can be recorded with its tokens: it has one prompt, which is not in the reply.

    Raises a 400 `Refusal` if it cannot and is for training.
    """
    wrong = {
        "echo": given.get("echo") is True,
        "prompt": len(prompts_of(given)) > 1,
        "best_of": (whole(given.get("best_of")) or 1) > (whole(given.get("n")) or 1),
    }
    for name, is_so in wrong.items():
        if is_so and training:
            raise Refusal(400, "not_trainable", UNTRAINABLE[name], param=name)
    return not any(wrong.values())


def _most_logprobs(given: JsonDict) -> int:
    """Number of logprobs per token that a text completion asks for; 0: only that of the sampled token."""
    return max(whole(given.get("logprobs")) or 0, 0)


def _visible(given: JsonDict) -> Visible:
    if ASKS_TO_SEE.isdisjoint(given):
        return NOTHING
    return Visible(
        logprobs=given.get("logprobs") is True or whole(given.get("logprobs")) is not None,
        token_ids=given.get("return_token_ids") is True,
        usage_chunk=isinstance(options := given.get("stream_options"), dict) and options.get("include_usage") is True,
        prompt_logprobs="prompt_logprobs" in given,
        kv_transfer_params="kv_transfer_params" in given,
    )


def as_engines_read(request: Mapping[str, Any]) -> JsonDict:
    """The request without nulls, and with numbers where they were given as text: engines read "0.9" as 0.9.

    A temperature between 0 and `LEAST_TEMPERATURE` is raised to it. Raises a 400 `Refusal` for what is not a number.
    """
    given = {name: value for name, value in request.items() if value is not None}
    for name in FLOATS & given.keys():
        given[name] = _number(name, given[name])
    for name in INTEGERS & given.keys():
        given[name] = _integer(name, given[name])
    for name in SWITCHES & given.keys():
        given[name] = _switch(name, given[name])
    if 0 < given.get("temperature", 0) < LEAST_TEMPERATURE:
        given["temperature"] = LEAST_TEMPERATURE
    return given


def shaping_fields(given: JsonDict) -> tuple[str, ...]:
    """Names of the fields of a request, as engines read it, that shape its distribution beyond temperature."""
    found = tuple(name for name, value in given.items() if name not in HARMLESS and _shapes(name, value, given))
    return (*found, STRICT) if given.get("tools") and any_strict(given["tools"]) else found


def overridden_fields(shaping: tuple[str, ...], policy: ShapedSampling) -> tuple[str, ...]:
    """Which of the `shaping` fields of a training call are not sent. Raises a 400 `Refusal` if the policy says so."""
    if policy is ShapedSampling.REFUSE and shaping:
        what = " and ".join(told(shaping))
        message = f"{what} changes the distribution that is trained: leave it out in training rollouts (mode train)"
        raise Refusal(400, "shaped_sampling", message, param=told(shaping)[0])
    if policy is not ShapedSampling.OVERRIDE or not FORMS.keys().isdisjoint(shaping):
        return ()
    return shaping


def told(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names for records and headers: of limited number and length, and harmless in a header."""
    return tuple([re.sub(r"[^\w.-]", "?", name[:MAX_NAME], flags=re.ASCII) for name in names[:MAX_NAMES]])


def sampling_of(body: JsonDict, shaping: tuple[str, ...] = ()) -> Sampling:
    """The sampling parameters of a body, as recorded; a disabled top_k is always -1."""
    top_k = whole(body.get("top_k"))
    return _sampling(
        _float(body, "temperature", 1.0),
        _float(body, "top_p", 1.0),
        top_k if top_k and top_k > 0 else -1,
        _float(body, "min_p", 0.0),
        _float(body, "presence_penalty", 0.0),
        _float(body, "frequency_penalty", 0.0),
        _float(body, "repetition_penalty", 1.0),
        whole(body.get("seed")),
        whole(body.get("max_completion_tokens", body.get("max_tokens"))),
        told(shaping),
    )


@lru_cache(maxsize=1024)  # most calls of an agent have equal parameters
def _sampling(*values: object) -> Sampling:
    return Sampling.model_validate(dict(zip(Sampling.model_fields, values, strict=True)))


def whole(value: object) -> int | None:
    """`value` if it is an integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shapes(name: str, value: object, given: JsonDict) -> bool:
    if name == BEST_OF:
        return (whole(value) or 1) > (whole(given.get("n")) or 1)
    if name in NEUTRAL_NUMBERS:
        neutral = NEUTRAL_NUMBERS[name]
        return value != neutral and not (name == "top_k" and isinstance(value, int) and value < 0)
    return value not in (NEUTRAL_VALUES.get(name) or FORMS.get(name, ()))


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _not("a number", name)
    return number


def _integer(name: str, value: object) -> int:
    number, text = _number(name, value), str(value).strip()
    found = int(text) if text.lstrip("+-").isdigit() else int(number)
    if number != int(number) or not -(2**63) <= found < 2**63:
        raise _not("a whole number of 64 bits", name)
    return found


def _switch(name: str, value: object) -> bool:
    word = value.lower() if isinstance(value, str) else value
    if not isinstance(word, str | int | float) or word not in WORDS:
        raise _not("true or false", name)
    return WORDS[word]


def _not(what: str, name: str) -> Refusal:
    return Refusal(400, "invalid_request", f"`{name}` must be {what}", param=name)


def _float(body: JsonDict, name: str, default: float) -> float:
    value = body.get(name, default)
    return float(value) if isinstance(value, (int, float)) else default


CONTAINER_BYTES, NAME_BYTES, VALUE_BYTES = 64, 140, 64
"""What an array or object takes in CPython, a name in an object, and a value, each at most and apart from text."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, also one that the body's end cuts off: so every body is read once."""
_ASTRAL, _SURROGATE = re.compile(rb"[\xf0-\xff]"), re.compile(rb"\\u[dD][89abAB]")
"""A character outside the basic plane, as UTF-8 or as a surrogate: every character of its string takes four bytes. Any
other one beyond ASCII makes them two at most."""
WIDE_BYTES = 32
"""What CPython adds to the header of such a string."""
ROUGH_BYTES = 1024 * 1024
STRINGS_AT_A_TIME = 4096
MOST_QUOTES = 200_000
"""A body with more is estimated roughly: to look at so many strings takes seconds, and their values count most."""


def decoded_bytes(body: bytes) -> int:
    """What the values of a JSON body take in memory, estimated from above without decoding it.

    `[],[],…` takes more than 20 times its length, text one to four times. Small bodies are estimated roughly, what
    looks like values in their strings included; for larger ones, and for text beyond ASCII, string by string.
    """
    rough = _values_bytes(body)
    wide = not body.isascii() or b"\\u" in body
    if body.count(b'"') - body.count(b'\\"') > MOST_QUOTES:
        return (4 if wide else 1) * len(body) + rough
    return len(body) + (_exact_bytes(body) if wide or rough > ROUGH_BYTES else rough)


def _exact_bytes(body: bytes) -> int:
    """What values take without their text, and what each string takes beyond its length.

    A loop, not one `sub` over the whole: that would keep other threads waiting for as long as it takes.
    """
    found, end = 0, 0
    between: list[bytes] = []
    for match in _STRING.finditer(body):
        string = match[0]
        if not string.isascii() or b"\\u" in string:
            found += WIDE_BYTES + len(string) * (3 if _ASTRAL.search(string) or _SURROGATE.search(string) else 1)
        between.append(body[end : match.start()])
        end = match.end()
        if len(between) == STRINGS_AT_A_TIME:
            found += _values_bytes(b"".join(between))
            between.clear()
    return found + _values_bytes(b"".join((*between, body[end:])))


def _values_bytes(body: bytes) -> int:
    containers = body.count(b"{") + body.count(b"[")
    return CONTAINER_BYTES * containers + NAME_BYTES * body.count(b":") + VALUE_BYTES * body.count(b",")


def json_object(body: bytes) -> JsonDict:
    """The body as a JSON object. Raises a 400 `Refusal` for anything else, and if it is nested too deep."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refusal(400, "invalid_json", "the body must be a JSON object")
    if body.count(b"{") + body.count(b"[") > MAX_JSON_DEPTH and _deeper_than(parsed, MAX_JSON_DEPTH):
        raise Refusal(400, "invalid_json", f"the body is nested deeper than {MAX_JSON_DEPTH} levels")
    return parsed


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in (dict, list)
        ]
        if not level:
            return False
    return True
