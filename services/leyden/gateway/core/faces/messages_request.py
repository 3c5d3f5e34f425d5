"""Translates an Anthropic messages request to an equivalent chat request. What has no chat form is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from leyden.gateway.core.faces.openai import REASONING
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict

SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
"""Fields with the same name and meaning in both APIs."""
MEANINGLESS = (
    "thinking",
    "service_tier",
    "speed",
    "cache_control",
    "context_management",
    "diagnostics",
    "inference_geo",
    "betas",
    "container",
    "user_profile_id",
    "workspace_id",
)
"""Fields of Anthropic's own service, ignored here. Whether a model thinks depends on it and its template."""
TRANSLATED = ("messages", "system", "stop_sequences", "tools", "tool_choice", "metadata", "output_config", "n")
SEPARATOR = "\n\n"
"""Joins the text blocks of a system prompt; other texts are joined without a separator."""


def chat_request(body: JsonDict) -> JsonDict:
    """The chat request. Unknown fields pass through. Raises a 400 `Refusal` with `param` for an invalid field."""
    if body.get("n") not in (None, 1):
        raise _refused("n", "`n` must be 1: a message has one choice")
    own = {*SAME, *MEANINGLESS, *TRANSLATED}
    chat = {name: value for name, value in body.items() if name not in own}
    chat |= {name: body[name] for name in SAME if body.get(name) is not None}
    chat["messages"] = _messages(body)
    if chat["messages"][-1]["role"] == "assistant":
        # If the last message is the assistant's, Anthropic continues it.
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    if body.get("stream") is True:
        chat["stream_options"] = {"include_usage": True}
    if stops := body.get("stop_sequences"):
        chat["stop"] = stops
    if isinstance(user := _object(body, "metadata").get("user_id"), str):
        chat["user"] = user
    return chat | _tools(body) | _output(_object(body, "output_config"))


def _object(body: JsonDict, name: str) -> JsonDict:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise _refused(name, f"`{name}` must be an object")
    return value or {}


def _messages(body: JsonDict) -> list[JsonDict]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _refused("messages", "must contain at least one message")
    system = _system(body.get("system"))
    made: list[JsonDict] = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") not in tuple(_ROLES):
            raise _refused(f"{where}.role", "must be `user`, `assistant` or `system`")
        content = message.get("content")
        if isinstance(content, str):
            made.append({"role": message["role"], "content": content})
        elif isinstance(content, list):
            made += _ROLES[message["role"]](content, where)
        else:
            raise _refused(f"{where}.content", "must be a string or a list of blocks")
    if not made:
        raise _refused("messages", "messages must not be empty")
    return made


def _system(system: object) -> str:
    if isinstance(system, list):
        return SEPARATOR.join(_text(block, f"system.{index}") for index, block in enumerate(system))
    if system is None or isinstance(system, str):
        return system or ""
    raise _refused("system", "must be a string or a list of text blocks")


def _of_user(blocks: list[Any], where: str) -> list[JsonDict]:
    """Tool results become separate messages, before the rest of the user's turn."""
    results, parts = [], []
    for index, block in enumerate(blocks):
        at = f"{where}.content.{index}"
        if _kind(block, at) == "tool_result":
            results.append(_tool_result(block, at))
        else:
            parts.append(_part(block, at))
    return results + ([{"role": "user", "content": _simplest(parts)}] if parts else [])


def _tool_result(block: Mapping[str, Any], where: str) -> JsonDict:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise _refused(f"{where}.tool_use_id", "a tool result must have a `tool_use_id`")
    content = block.get("content")
    if isinstance(content, list):
        content = _simplest([_part(part, f"{where}.content.{index}") for index, part in enumerate(content)])
    elif content is not None and not isinstance(content, str):
        raise _refused(f"{where}.content", "must be a string or a list of blocks")
    return {"role": "tool", "tool_call_id": call_id, "content": content or ""}


def _of_assistant(blocks: list[Any], where: str) -> list[JsonDict]:
    texts, thoughts, calls = [], [], []
    for index, block in enumerate(blocks):
        at = f"{where}.content.{index}"
        match _kind(block, at):
            case "tool_use":
                calls.append(_tool_call(block, at))
            case "thinking":
                thoughts.append(str(block.get("thinking") or ""))
            case "redacted_thinking":
                pass
            case _:
                texts.append(_text(block, at))
    message: JsonDict = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if any(thoughts):
        message[REASONING] = "".join(thoughts)
    return [message | ({"tool_calls": calls} if calls else {})]


def _of_system(blocks: list[Any], where: str) -> list[JsonDict]:
    texts = [_text(block, f"{where}.content.{index}") for index, block in enumerate(blocks)]
    return [{"role": "system", "content": SEPARATOR.join(texts)}]


_ROLES: dict[str, Callable[[list[Any], str], list[JsonDict]]] = {
    "user": _of_user,
    "assistant": _of_assistant,
    "system": _of_system,
}


def _tool_call(block: Mapping[str, Any], where: str) -> JsonDict:
    call_id, name, given = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(call_id, str) or not isinstance(name, str):
        raise _refused(where, "a tool use must have an `id` and a `name`")
    arguments = orjson.dumps({} if given is None else given).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _part(block: Any, where: str) -> JsonDict:
    """A part of a chat message, from a block of a user message or a tool result."""
    kind = _kind(block, where)
    source = block.get("source")
    if kind == "image" and isinstance(source, dict):
        return {"type": "image_url", "image_url": {"url": _image_url(source, where)}}
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return {"type": "text", "text": str(source.get("data") or "")}
    return {"type": "text", "text": _text(block, where)}


def _image_url(source: Mapping[str, Any], where: str) -> str:
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        return f"data:{source.get('media_type') or 'image/png'};base64,{source['data']}"
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        return str(source["url"])
    raise _refused(f"{where}.source", "must be of type `base64` or `url`")


def _simplest(parts: list[JsonDict]) -> str | list[JsonDict]:
    """One string if all parts are text, as every chat template accepts that; otherwise `parts`."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _text(block: Any, where: str) -> str:
    if _kind(block, where) != "text" or not isinstance(block.get("text"), str):
        raise _refused(where, f"blocks of type {str(block.get('type'))[:64]!r} are not supported")
    return str(block["text"])


def _kind(block: Any, where: str) -> str:
    if not isinstance(block, dict):
        raise _refused(where, "must be an object with a `type`")
    return str(block.get("type"))


def _tools(body: JsonDict) -> JsonDict:
    chat: JsonDict = {}
    if tools := body.get("tools"):
        if not isinstance(tools, list):
            raise _refused("tools", "must be a list")
        chat["tools"] = [_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]
    choice = body.get("tool_choice")
    if choice is None:
        return chat
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in tuple(_CHOICES) and (kind != "tool" or not isinstance(choice.get("name"), str)):
        raise _refused("tool_choice", "`type` must be `auto`, `any`, `none`, or `tool` with a `name`")
    chat["tool_choice"] = _CHOICES.get(kind) or {"type": "function", "function": {"name": choice["name"]}}
    if choice.get("disable_parallel_tool_use") is True:
        chat["parallel_tool_calls"] = False
    return chat


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _tool(tool: Any, where: str) -> JsonDict:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise _refused(f"{where}.name", "a tool must have a name")
    if tool.get("type") not in (None, "custom") or not isinstance(tool.get("input_schema"), dict):
        kind = str(tool.get("type"))[:64]
        raise _refused(
            where, f"a tool must have an `input_schema`; tools of type {kind!r} work with Anthropic's models only"
        )
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _output(config: Mapping[str, Any]) -> JsonDict:
    chat: JsonDict = {}
    form = config.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {"name": "output", "schema": form.get("schema"), "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(config.get("effort"), str):
        chat["reasoning_effort"] = config["effort"]
    return chat


def _refused(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_request", message, param=param)
