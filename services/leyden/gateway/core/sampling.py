"""What shapes the distribution from which tokens are sampled, and what becomes of it in training rollouts.

The trainer computes the model's own distribution at the recorded temperature; a call is trained only if it was sampled
from that one. The list is closed: a field that stands in none of the tables below counts as shaping.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent where the caller gives no value, so that no default of an engine can change sampling without being recorded."""
NEUTRAL_NUMBERS: Mapping[str, float] = {
    "top_p": 1,
    "top_k": 0,
    "min_p": 0,
    "typical_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "length_penalty": 1,
    "min_tokens": 0,
}
"""Numbers that shape the distribution unless they have this value; a negative top_k is off, too."""
NEUTRAL_VALUES: Mapping[str, tuple[object, ...]] = {
    "logit_bias": ({},),
    "bad_words": ([],),
    "logits_processors": ([],),
    "vllm_xargs": ({},),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "watermarking": (False,),
}
"""Other fields that shape it, except with one of these values."""
FORMS: Mapping[str, tuple[object, ...]] = {
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
"""Fields that force a form on the response, except with one of these values. Without them the agent would fail."""
BEST_OF = "best_of"
"""Selects among completions if it is more than `n`."""
STRICT = "strict"
"""Name for tools with `strict`: their arguments are forced into a form."""
SHAPING = frozenset({*NEUTRAL_NUMBERS, *NEUTRAL_VALUES, *FORMS, BEST_OF, STRICT})
"""Fields that are known to shape it."""
FLOATS = frozenset({"temperature", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty"}) | {
    "repetition_penalty",
    "length_penalty",
}
INTEGERS = frozenset({"top_k", "min_tokens", "n", "best_of", "seed", "max_tokens", "max_completion_tokens"}) | {
    "top_logprobs"
}
SWITCHES = frozenset({"stream", "echo", "use_beam_search", "early_stopping", "watermarking", "ignore_eos"}) | {
    "return_token_ids"
}
WORDS: Mapping[object, bool] = dict.fromkeys(("true", "t", "yes", "y", "on", "1", 1), True) | dict.fromkeys(
    ("false", "f", "no", "n", "off", "0", 0), False
)
"""What engines read as a boolean (pydantic's rules)."""
HARMLESS = frozenset({
    # The prompt, whose token ids are recorded.
    "model", "messages", "prompt", "suffix", "tools", "functions", "documents", "chat_template",
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "add_special_tokens",
    "truncate_prompt_tokens", "truncation_side", "reasoning_effort", "verbosity", "parallel_tool_calls", "prediction",
    "leyden_continue",
    # How much is sampled, and when it ends.
    "temperature", "seed", "n", "max_tokens", "max_completion_tokens", "stop", "stop_token_ids",
    "ignore_eos",
    # What is returned.
    "stream", "stream_options", "stream_interval", "logprobs", "top_logprobs", "prompt_logprobs", "echo",
    "include_reasoning", "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
    "return_token_ids", "return_tokens_as_token_ids", "return_token_offsets", "return_prompt_text",
    "routed_experts_prompt_start",
    # Who asks, and how the request is served.
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "priority", "request_id", "session_id", "cache_salt", "kv_transfer_params", "ec_transfer_params",
})  # fmt: skip
"""Fields that do not change how probable a token is, given the prompt."""
MAX_NAMES, MAX_NAME = 16, 64
"""Names of shaping fields that are recorded and told, and their greatest length: callers choose them."""


class ShapedSampling(StrEnum):
    """Treatment, in training rollouts, of whatever shapes the distribution beyond temperature."""

    REFUSE = "refuse"
    """400, which names the field to remove."""
    OVERRIDE = "override"
    """The field is not sent; the reply's header `x-leyden-overridden` names it. Calls with a forced form: as `mark`."""
    MARK = "mark"
    """Sampled as asked, recorded, and never trained; the reply's header `x-leyden-untrained` names the field."""


def any_strict(tools: object) -> bool:
    """Whether one of the tools has `strict`, as engines read it."""
    return isinstance(tools, list) and any(_is_strict(tool) for tool in tools)


def loosened(tools: list[Any]) -> list[Any]:
    """The tools without `strict`."""
    return [
        tool | {"function": {name: value for name, value in tool["function"].items() if name != STRICT}}
        if _is_strict(tool)
        else tool
        for tool in tools
    ]


def _is_strict(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    strict = function.get(STRICT) if isinstance(function, dict) else None
    word = strict.lower() if isinstance(strict, str) else strict
    return word is not None and (not isinstance(word, str | int | float) or WORDS.get(word, True))
