"""Converts messages, texts and token ids to prompts: lists of token ids."""

import json
from typing import Any

from jinja2 import TemplateError

from leyden.policy.engines.transformers_engine.protocol import CompletionRequest, Conversation

DEVELOPER = "developer"
"""OpenAI's newer name of the role `system`, which few chat templates know."""
MARK = "leyden-mark-"
"""Begins what stands for a message's text when it is checked whether a template writes it."""


class PromptError(Exception):
    """The request has no valid prompt, or one that is too long. Answered with 400."""

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code


def render(tokenizer: Any, chat: Conversation) -> list[int]:
    """Render messages to prompt token ids with the chat template.

    `developer` messages become `system` messages if the template does not know that role. Raises PromptError if the
    template rejects the messages, or drops one: the model would not see it.
    """
    if tokenizer.chat_template is None:
        raise PromptError("this model has no chat template")
    messages = [_plain(message) for message in chat.messages]
    try:
        text = _rendered(tokenizer, chat, messages)
    except PromptError:
        if not any(message.get("role") == DEVELOPER for message in messages):
            raise
        text = _rendered(tokenizer, chat, [_without_developer(message) for message in messages])
    return list(tokenizer.encode(text, add_special_tokens=False))


def _rendered(tokenizer: Any, chat: Conversation, messages: list[dict[str, Any]]) -> str:
    """The prompt as text. Raises PromptError."""
    text = _applied(tokenizer, chat, messages)
    marks = {at: f"{MARK}{at}x" for at, message in enumerate(messages) if _must_show(message)}
    marked = _applied(
        tokenizer,
        chat,
        [message | ({"content": marks[at]} if at in marks else {}) for at, message in enumerate(messages)],
    )
    if dropped := sorted({str(messages[at].get("role")) for at, mark in marks.items() if mark not in marked}):
        raise PromptError(f"the chat template drops messages of role {', '.join(dropped)}")
    return text


def _applied(tokenizer: Any, chat: Conversation, messages: list[dict[str, Any]]) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tools=chat.tools,
                add_generation_prompt=chat.add_generation_prompt,
                continue_final_message=chat.continue_final_message,
                tokenize=False,
                **chat.chat_template_kwargs,
            )
        )
    except (TemplateError, TypeError, KeyError, ValueError) as problem:
        raise PromptError(f"the chat template rejects these messages: {problem}") from problem


def _must_show(message: dict[str, Any]) -> bool:
    """Whether the message's text must be in the prompt. Many templates leave out the text beside tool calls."""
    return bool(message["content"].strip()) and not message.get("tool_calls")


def _without_developer(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"role": "system"} if message.get("role") == DEVELOPER else message


def prompts_of(tokenizer: Any, request: CompletionRequest, vocabulary: int) -> list[list[int]]:
    """The prompts of a text completion. Raises PromptError for an empty prompt or a token id out of range."""
    given: list[Any] = request.prompt if isinstance(request.prompt, list) else [request.prompt]
    several: list[Any] = [given] if given and isinstance(given[0], int) else given

    def tokens(one: str | list[int]) -> list[int]:
        return (
            list(tokenizer.encode(one, add_special_tokens=request.add_special_tokens)) if isinstance(one, str) else one
        )

    prompts = [tokens(one) for one in several]
    if not prompts or not all(prompts):
        raise PromptError("a prompt needs at least one token")
    if any(token >= vocabulary for prompt in prompts for token in prompt):
        raise PromptError(f"prompt token ids must be less than {vocabulary}")
    return prompts


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """The message as chat templates expect it: content as one string, arguments of tool calls as objects."""
    plain = message | {"content": _text(message.get("content"))}
    if thought := message.get("reasoning") or message.get("reasoning_content"):
        plain |= {"reasoning": thought, "reasoning_content": thought}  # some templates use one name, some the other
    if calls := message.get("tool_calls"):
        plain["tool_calls"] = [call | {"function": _with_object(call["function"])} for call in calls]
    return plain


def _text(content: Any) -> str:
    if not isinstance(content, list):
        return content or ""
    if any(part.get("type") != "text" for part in content):
        raise PromptError("only text parts are supported")
    return "\n".join(part["text"] for part in content)


def _with_object(function: dict[str, Any]) -> dict[str, Any]:
    """`function` with its arguments as an object; unchanged if they are not a JSON object (models write such)."""
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        return function
    return function | {"arguments": arguments} if isinstance(arguments, dict) else function
