"""Request models: the part of OpenAI's API that this engine supports, plus some of vLLM's extensions."""

from abc import abstractmethod
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from leyden.engine_face import LEAST_TEMPERATURE
from leyden.policy.engines.transformers_engine.sequence import Sampling

NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "logit_bias": ({},),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "stop_token_ids": ([],),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "guided_json": (),
    "guided_regex": (),
    "structured_outputs": (),
    "functions": (),
    "use_beam_search": (False,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "prompt_logprobs": (),
}
"""Unsupported options → the values at which they have no effect. Any other value gets 400 instead of being ignored."""
TEXT_TOKENS = 16
"""Default `max_tokens` of text completions, as in OpenAI's API."""
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class Lenient(BaseModel):
    """A request in which null fields count as absent and unknown fields are kept."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body


class Conversation(Lenient):
    """The fields rendered by a chat template."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _begin_or_continue(self) -> Self:
        if self.continue_final_message:
            if self.add_generation_prompt and "add_generation_prompt" in self.model_fields_set:
                raise ValueError("continue_final_message and add_generation_prompt cannot both be set")
            self.add_generation_prompt = False
        return self


class SamplingRequest(Lenient):
    """The fields that chat and text completions have in common."""

    model: str
    n: int = Field(default=1, ge=1, le=128)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1)
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in NEUTRAL and value not in NEUTRAL[name]:
                raise ValueError(f"{name}={value!r} is not supported by the transformers engine")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a tuple, without empty strings."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    @abstractmethod
    def likeliest(self) -> int:
        """How many of the most likely tokens to return with each sampled token."""

    def sampling(self, index: int, max_tokens: int) -> Sampling:
        """Sampling parameters of choice `index`. Each choice has its own seed: `seed` + `index`."""
        return Sampling(
            temperature=max(self.temperature, LEAST_TEMPERATURE) if self.temperature else 0.0,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            seed=None if self.seed is None else self.seed + index,
            max_tokens=max_tokens,
            stops=self.stops,
            ignore_eos=self.ignore_eos,
            top_logprobs=self.likeliest,
        )


class ChatRequest(Conversation, SamplingRequest):
    """Body of `POST /v1/chat/completions`."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _top_of_nothing(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs")
        return self

    @property
    def likeliest(self) -> int:
        """`top_logprobs`."""
        return self.top_logprobs

    @property
    def may_call_tools(self) -> bool:
        """Whether the response is parsed for tool calls."""
        return bool(self.tools) and (self.model_extra or {}).get("tool_choice") != "none"

    def sampling(self, index: int, max_tokens: int) -> Sampling:
        """As in the base class, with special tokens kept in the text if tools are given: they may mark tool calls."""
        return super().sampling(index, max_tokens).with_special_tokens(self.may_call_tools)


class CompletionRequest(SamplingRequest):
    """Body of `POST /v1/completions`."""

    prompt: str | Tokens | list[str] | list[Tokens]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    add_special_tokens: bool = True

    @property
    def likeliest(self) -> int:
        """`logprobs` as a number; 0: only the sampled token."""
        return self.logprobs or 0


class TokenizeText(Lenient):
    """Body of `POST /tokenize` for a text."""

    prompt: str
    add_special_tokens: bool = True


def _form(body: Any) -> str:
    return "messages" if isinstance(body, dict) and "messages" in body else "text"


TokenizeRequest = Annotated[
    Annotated[Conversation, Tag("messages")] | Annotated[TokenizeText, Tag("text")], Discriminator(_form)
]
"""Body of `POST /tokenize`."""
