"""Messages and tools to prompt token ids, through the model's chat template."""

from typing import Any

from jinja2 import TemplateError

from leyden.policy.engines.transformers_engine.protocol import ChatRequest


class PromptError(Exception):
    """The request cannot become a prompt that fits: the caller's mistake."""

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code


def render(tokenizer: Any, chat: ChatRequest) -> list[int]:
    """Prompt token ids; raises PromptError where the template refuses the messages."""
    if tokenizer.chat_template is None:
        raise PromptError("this model has no chat template")
    try:
        text = tokenizer.apply_chat_template(
            [_flat(message) for message in chat.messages],
            tools=chat.tools,
            add_generation_prompt=True,
            tokenize=False,
            **chat.chat_template_kwargs,
        )
    except (TemplateError, TypeError, KeyError) as problem:
        raise PromptError(f"the chat template refuses these messages: {problem}") from problem
    return list(tokenizer.encode(text, add_special_tokens=False))


def _flat(message: dict[str, Any]) -> dict[str, Any]:
    """Content given as parts becomes one text, which is what text models' templates expect."""
    content = message.get("content")
    if not isinstance(content, list):
        return message | {"content": content or ""}
    if any(part.get("type") != "text" for part in content):
        raise PromptError("only text parts are supported")
    return message | {"content": "\n".join(part["text"] for part in content)}
