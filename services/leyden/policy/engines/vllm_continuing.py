"""Adds continuation of earlier calls to the vLLM in this process. vLLM is never imported by name.

It wraps the method of vLLM's chat handler that renders a request, so templates, tool parsers and reasoning parsers stay
vLLM's own. Tested with vLLM 0.32.
"""

from collections.abc import Set
from typing import Any

from leyden.policy.engines.continuing import CURRENT, prompt_of

_MARK = "leyden_continues"


def install(app: Any) -> None:
    """Wrap the chat handler, once. If this vLLM has no such method, prompts are not continued and no header is sent."""
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
    """The end-of-turn tokens of the model."""
    listed = serving.model_config.try_get_generation_config().get("eos_token_id")
    found = set(listed) if isinstance(listed, list) else {listed}
    return frozenset(token for token in found | {serving.renderer.tokenizer.eos_token_id} if token is not None)


def _continued(one: Any, ends: Set[int]) -> Any:
    """The engine input with the continued prompt. Inputs with images or embeddings are not changed."""
    if one.get("type") != "token":
        return one
    prompt = prompt_of(one["prompt_token_ids"], ends)
    if prompt is one["prompt_token_ids"]:
        return one
    kept = {name: value for name, value in one.items() if name not in ("prompt", "prompt_token_offsets")}
    return kept | {"prompt_token_ids": list(prompt)}
