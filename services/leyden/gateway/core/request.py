"""A model call's request: its attempt and agent, and the request to the engine.

Every sampling parameter is sent explicitly, so that no default of an engine (such as a model's generation_config) can
change sampling without being recorded. Unknown fields pass through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import orjson

from leyden.events import Sampling
from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
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


NAME_HEADER = "x-leyden-agent"
ROLE_HEADER = "x-leyden-agent-role"
NAME_KEYS = ("leyden.agent.name", "gen_ai.agent.name")
ROLE_KEYS = ("leyden.agent.role",)
MAX_LENGTH = 128
"""Maximum characters of a name or role, which are labels chosen by the caller."""
MAX_BAGGAGE = 8192
"""Maximum bytes of baggage, as in the W3C specification."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Name and role of the agent; None if unknown."""

    name: str | None = None
    role: str | None = None


NOBODY = Agent()
"""An unknown agent."""


def agent_of(name: str | None, role: str | None, baggage: Sequence[str]) -> Agent:
    """The agent by the two headers, else by all `baggage` headers. Malformed values are ignored."""
    members = _members(",".join(baggage)[:MAX_BAGGAGE])
    return Agent(
        _label(name) or _first(members, NAME_KEYS),
        _label(role) or _first(members, ROLE_KEYS),
    )


def _members(baggage: str) -> dict[str, str]:
    """Key → value of a W3C baggage list; the first of two equal keys counts."""
    found: dict[str, str] = {}
    for member in baggage.split(","):
        key, equals, value = member.partition(";")[0].partition("=")
        if equals:
            found.setdefault(key.strip(), unquote(value.strip(), errors="replace"))
    return found


def _first(members: dict[str, str], keys: Sequence[str]) -> str | None:
    return next((label for key in keys if (label := _label(members.get(key)))), None)


def _label(text: str | None) -> str | None:
    """`text` as a label of limited length without control characters; None if empty."""
    printable = "".join(character for character in text or "" if character.isprintable())
    return printable.strip()[:MAX_LENGTH].rstrip() or None


JsonDict = dict[str, Any]

NEUTRAL: JsonDict = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Default sampling parameters: the model's own distribution."""
TRUNCATING = ("top_p", "top_k", "min_p")
NUMBER = (int, float)  # `int | float` builds a new union at every check: measured as a fifth of preparing a call
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


class TruncatedSampling(StrEnum):
    """Treatment of top_p < 1, top_k > 0 and min_p > 0 in training rollouts, whose logprobs they would bias."""

    REFUSE = "refuse"
    """400, which names the parameter to remove."""
    OVERRIDE = "override"
    """Switched off; the reply's header `x-leyden-overridden` names it."""
    ALLOW = "allow"
    """Sampled as asked, and recorded."""


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
    traced: bool = True
    """Whether the reply must have token ids and logprobs."""


def prepare(request: JsonDict, training: bool, truncated: TruncatedSampling, api: Api = Api.CHAT) -> Prepared:
    """The request to send for `request`. Raises a 400 `Refusal` if it may not be sampled as asked."""
    given = {name: value for name, value in request.items() if value is not None}
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "missing_model", "`model` must name a policy", param="model")
    if api is Api.EMBEDDINGS:
        return Prepared(
            body=given, model=model, streamed=False, choices=0, sampling=Sampling(), visible=Visible(), traced=False
        )
    overridden = tuple([name for name in TRUNCATING if _truncates(name, given.get(name))]) if training else ()
    if overridden and truncated is TruncatedSampling.REFUSE:
        raise _truncation_refused(overridden)
    if truncated is TruncatedSampling.ALLOW:
        overridden = ()
    body = NEUTRAL | {name: value for name, value in given.items() if name not in overridden}
    count = _whole(given.get("n")) or 1
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
        sampling=sampling_of(body),
        visible=_visible(given),
        overridden=overridden,
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
        "best_of": (_whole(given.get("best_of")) or 1) > (_whole(given.get("n")) or 1),
    }
    for name, is_so in wrong.items():
        if is_so and training:
            raise Refusal(400, "not_trainable", UNTRAINABLE[name], param=name)
    return not any(wrong.values())


def _most_logprobs(given: JsonDict) -> int:
    """Number of logprobs per token that a text completion asks for; 0: only that of the sampled token."""
    return max(_whole(given.get("logprobs")) or 0, 0)


def sampling_of(body: JsonDict) -> Sampling:
    """The sampling parameters of a body, as recorded; a disabled top_k is always -1."""
    top_k = _whole(body.get("top_k"))
    return _sampling(
        _number(body, "temperature", 1.0),
        _number(body, "top_p", 1.0),
        top_k if top_k and top_k > 0 else -1,
        _number(body, "min_p", 0.0),
        _number(body, "presence_penalty", 0.0),
        _number(body, "frequency_penalty", 0.0),
        _number(body, "repetition_penalty", 1.0),
        _whole(body.get("seed")),
        _whole(body.get("max_completion_tokens", body.get("max_tokens"))),
    )


@lru_cache(maxsize=1024)
def _sampling(*values: float | None) -> Sampling:
    """One shared record for equal parameters, as most calls of an agent have."""
    return Sampling.model_validate(dict(zip(Sampling.model_fields, values, strict=True)))


def _visible(given: JsonDict) -> Visible:
    if ASKS_TO_SEE.isdisjoint(given):
        return NOTHING
    return Visible(
        logprobs=given.get("logprobs") is True or _whole(given.get("logprobs")) is not None,
        token_ids=given.get("return_token_ids") is True,
        usage_chunk=isinstance(options := given.get("stream_options"), dict) and options.get("include_usage") is True,
        prompt_logprobs="prompt_logprobs" in given,
        kv_transfer_params="kv_transfer_params" in given,
    )


def _truncates(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool) or not isinstance(value, NUMBER):
        return False  # the engine refuses it with its own message
    return value < 1 if name == "top_p" else value > 0


def _truncation_refused(names: tuple[str, ...]) -> Refusal:
    what = " and ".join(names)
    message = f"{what} cut off the distribution that is trained: leave them out in training rollouts (mode train)"
    return Refusal(400, "truncated_sampling", message, param=names[0])


def _number(body: JsonDict, name: str, default: float) -> float:
    value = body.get(name, default)
    return float(value) if isinstance(value, NUMBER) else default


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def json_object(body: bytes) -> dict[str, Any]:
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
