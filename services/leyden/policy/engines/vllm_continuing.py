"""Lets the vLLM that runs in this process continue an earlier call's tokens. vLLM is never imported by name.

vLLM renders a chat request in one method of its chat handler, and generates, streams and parses from what that returns;
it is wrapped, so that templates, tool parsers and reasoning parsers stay vLLM's own. Tried with vLLM 0.32.
"""

from collections.abc import Set
from typing import Any

from leyden.policy.engines.continuing import CURRENT, prompt_of

_MARK = "leyden_continues"


def install(app: Any) -> None:
    """Wrap the chat handler, once. A vLLM without that method answers as before, and its answers say nothing."""
    serving: Any = getattr(getattr(app, "state", None), "openai_serving_chat", None)
    render = getattr(serving, "render_chat_request", None)
    if render is None or hasattr(serving, _MARK):
        return
    ends = turn_ends(serving)

    async def render_chat_request(request: Any) -> Any:
        result = await render(request)
        if CURRENT.get() is None or not isinstance(result, tuple):
            return result
        conversation, inputs = result
        return conversation, [_continued(one, ends) for one in inputs]

    serving.render_chat_request = render_chat_request
    setattr(serving, _MARK, True)


def turn_ends(serving: Any) -> Set[int]:
    """The tokens at which this model stops by itself."""
    listed = serving.model_config.try_get_generation_config().get("eos_token_id")
    found = set(listed) if isinstance(listed, list) else {listed}
    return frozenset(token for token in found | {serving.renderer.tokenizer.eos_token_id} if token is not None)


def _continued(one: Any, ends: Set[int]) -> Any:
    """An engine input with the prompt to use; inputs with images or embeddings are left alone."""
    if one.get("type") != "token":
        return one
    prompt = prompt_of(one["prompt_token_ids"], ends)
    if prompt is one["prompt_token_ids"]:
        return one
    kept = {name: value for name, value in one.items() if name not in ("prompt", "prompt_token_offsets")}
    return kept | {"prompt_token_ids": list(prompt)}
