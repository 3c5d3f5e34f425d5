"""Other OpenAI-compatible servers, for models that Leyden does not train.

Their calls are forwarded unchanged and recorded; nothing about sampling or token ids is added or expected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator

from leyden.events import Sampling
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Api, JsonDict, Prepared, Visible, sampling_of

PATTERN_SIGNS = frozenset("*?[")
OWN_HEADERS = frozenset(
    {"authorization", "content-length", "content-type", "host", "transfer-encoding", "x-request-id"}
)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
API_PATHS = {"/chat/completions": Api.CHAT, "/completions": Api.COMPLETIONS, "/embeddings": Api.EMBEDDINGS}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of one call at a server, in seconds."""

    connect_s: float
    first_byte_s: float | None
    """Until the first byte of the reply's body; None: only `total_s` applies."""
    total_s: float


class Entry(BaseModel):
    """Base of the upstreams file's models. Unknown fields are errors, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeoutsEntry(Entry):
    """`timeouts` of an entry; defaults are those of engines."""

    connect_s: float | None = Field(default=None, gt=0)
    first_byte_s: float | None = Field(default=None, gt=0)
    total_s: float | None = Field(default=None, gt=0)


class UpstreamEntry(Entry):
    """One server of the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Its name in records and metrics."""
    models: list[str] = Field(min_length=1)
    """Names or patterns (`gpt-*`) of its models."""
    base_url: HttpUrl
    """Including `/v1` or the like: `/chat/completions` is appended."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """The environment variable with its key, sent as a bearer token; None: no key."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Our name of a model → the server's name."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers sent with every call."""
    timeouts: TimeoutsEntry = TimeoutsEntry()
    apis: frozenset[Api] = frozenset(Api)
    """The APIs that it serves. Responses and messages are always translated to chat."""
    max_in_flight: int = Field(default=256, ge=1)
    """Calls at a time from one gateway; one more gets 503."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: HttpUrl) -> HttpUrl:
        if url.query or url.fragment or url.username or url.password:
            raise ValueError("must have no query, fragment or credentials (a key is named by api_key_env)")
        return url

    @field_validator("headers")
    @classmethod
    def _sendable_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not HEADER_NAME.fullmatch(name) or not value.isprintable():
                raise ValueError(f"{name!r} is not a valid header")
        if wrong := sorted(name for name in headers if name.lower() in OWN_HEADERS):
            raise ValueError(f"{', '.join(wrong)} cannot be set here (a key is named by api_key_env)")
        return headers

    @model_validator(mode="after")
    def _chat_always(self) -> "UpstreamEntry":
        if Api.CHAT not in self.apis:
            raise ValueError("apis: chat is always served")
        if unknown := sorted(ours for ours in self.rename if not self.serves(ours)):
            raise ValueError(f"rename: {', '.join(unknown)} matches none of `models`")
        return self

    def serves(self, model: str) -> bool:
        """Whether a model's name matches one of the patterns (case-sensitive)."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class UpstreamsFile(Entry):
    """The whole file."""

    upstreams: list[UpstreamEntry] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_once(self) -> "UpstreamsFile":
        names = [entry.name for entry in self.upstreams]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"duplicate names: {', '.join(twice)}")
        return self


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server with its key."""

    entry: UpstreamEntry
    timeouts: Timeouts
    key: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its name in records and metrics."""
        return self.entry.name

    def url(self, route: str) -> str:
        """The URL of a route such as `/v1/chat/completions` at this server.

        Raises a 404 `Refusal` for an API that is not in `apis`.
        """
        path = route.removeprefix("/v1")
        if API_PATHS.get(path) not in self.entry.apis:
            raise Refusal(404, "api_not_served", f"`{self.name}` does not serve {route}", param="model")
        return str(self.entry.base_url).rstrip("/") + path

    def model(self, ours: str) -> str:
        """The server's name of a model."""
        return self.entry.rename.get(ours, ours)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every call."""
        return self.entry.headers | ({"authorization": f"Bearer {self.key}"} if self.key else {})


class Upstreams:
    """All servers, in the order of the file."""

    def __init__(self, upstreams: Sequence[Upstream] = ()) -> None:
        self._upstreams = tuple(upstreams)

    def find(self, model: str) -> Upstream | None:
        """The first server with a matching pattern."""
        return next((upstream for upstream in self._upstreams if upstream.entry.serves(model)), None)

    def models(self) -> list[tuple[str, str]]:
        """(model, server) for every model that is listed by its full name, once each."""
        found: dict[str, str] = {}
        for upstream in self._upstreams:
            for name in upstream.entry.models:
                if not PATTERN_SIGNS & set(name):
                    found.setdefault(name, self._owner(name))
        return list(found.items())

    def _owner(self, model: str) -> str:
        upstream = self.find(model)
        return upstream.name if upstream else ""


def passed_on(request: JsonDict) -> Prepared:
    """The request to another server: unchanged, except that a stream is asked for its usage, for the record."""
    model = str(request["model"])
    streamed = request.get("stream") is True
    body, options = dict(request), request.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    if streamed and "input" not in request:
        body["stream_options"] = (options if isinstance(options, dict) else {}) | {"include_usage": True}
    count = request.get("n")
    return Prepared(
        body=body,
        model=model,
        streamed=streamed,
        choices=count if isinstance(count, int) and count > 0 else 1,
        sampling=_sampling(request),
        visible=Visible(usage_chunk=asked, untouched=True),
        traced=False,
    )


def _sampling(request: Mapping[str, Any]) -> Sampling:
    return sampling_of({name: value for name, value in request.items() if value is not None})
