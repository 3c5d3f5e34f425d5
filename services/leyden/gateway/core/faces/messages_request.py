"""Translates an Anthropic messages request to an equivalent chat request. What has no chat form is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from leyden.gateway.core.faces.client_tools import client_tool
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
    "billing_policy",
    "fallback_credit_token",
    "fallbacks",
    "user_profile_id",
    "workspace_id",
)
"""Fields of Anthropic's own service, ignored here. Whether a model thinks depends on it and its template."""
SERVER_STATE = ("thread", "container", "mcp_servers", "compaction")
"""Fields by which Anthropic's servers keep or make a part of the conversation. Ignoring one would lose that part."""
TRANSLATED = (
    "messages", "system", "stop_sequences", "tools", "tool_choice", "metadata", "output_config", "output_format", "n",
)  # fmt: skip
ENGINES = frozenset(
    {
        "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "cache_salt", "chat_template",
        "chat_template_kwargs", "continue_final_message", "documents", "ebnf", "echo", "frequency_penalty",
        "guided_choice", "guided_decoding_backend", "guided_grammar", "guided_json", "guided_regex", "ignore_eos",
        "include_reasoning", "include_stop_str_in_output", "kv_transfer_params", "length_penalty", "logit_bias",
        "logprobs", "max_completion_tokens", "media_io_kwargs", "min_p", "min_tokens", "mm_processor_kwargs",
        "parallel_tool_calls", "presence_penalty", "priority", "prompt_logprobs", "reasoning_effort", "regex",
        "repetition_penalty", "response_format", "return_token_ids", "return_tokens_as_token_ids", "seed",
        "separate_reasoning", "skip_special_tokens", "spaces_between_special_tokens", "stop", "stop_token_ids",
        "structured_outputs", "thinking_token_budget", "top_logprobs", "truncate_prompt_tokens", "typical_p", "user",
        "vllm_xargs",
    }
)  # fmt: skip
"""Fields of engines' chat APIs that pass through. Any other field is refused: it may mean the conversation."""
KNOWN = {*SAME, *MEANINGLESS, *SERVER_STATE, *TRANSLATED, *ENGINES}
BLOCKS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text", "citations"}),
    "image": frozenset({"source", "transformations"}),
    "document": frozenset({"source", "title", "context", "citations"}),
    "tool_use": frozenset({"id", "name", "input", "caller", "toolset_name"}),
    "tool_result": frozenset({"tool_use_id", "content", "is_error", "toolset_name"}),
    "thinking": frozenset({"thinking", "signature"}),
    "redacted_thinking": frozenset({"data"}),
}
"""Fields of each type of block, beside `type` and `cache_control`. Any other is refused, as by Anthropic."""
ERROR = "Error: "
"""Begins the text of a tool result that is an error: chat messages have no such mark."""
SEPARATOR = "\n\n"
"""Joins the text blocks of a system prompt; other texts are joined without a separator."""


def chat_request(body: JsonDict) -> JsonDict:
    """The chat request. Fields of engines pass through. Raises a 400 `Refusal` that names what is not supported."""
    _must_be_served(body)
    if body.get("n") not in (None, 1):
        raise _refused("n", "`n` must be 1: a message has one choice")
    chat = {name: value for name, value in body.items() if name in ENGINES}
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
    form = _object(body, "output_config").get("format") or body.get("output_format")
    return chat | _tools(body) | _output(_object(body, "output_config"), form)


def _must_be_served(body: JsonDict) -> None:
    """Refuse what keeps a part of the conversation elsewhere, or is unknown and so might.

    `thread` has the error code on which Anthropic's SDK goes on without threads and sends every message.
    """
    kept = [name for name in SERVER_STATE if body.get(name)]
    if "thread" in kept:
        message = "`thread` is not supported: nothing is kept between requests; send every message in `messages`"
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        raise Refusal(400, "thread_unsupported_request", message, param="thread", details=details)
    if kept:
        raise _refused(kept[0], "not supported: it needs Anthropic's servers")
    for name in body:
        if name not in KNOWN:
            raise _refused(name[:64], "unknown field: neither Anthropic's Messages API nor a chat engine has it")


def _object(body: JsonDict, name: str) -> JsonDict:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise _refused(name, f"`{name}` must be an object")
    return value or {}


def _messages(body: JsonDict) -> list[JsonDict]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _refused("messages", "must contain at least one message")
    system, deferred = _system(body.get("system")), _definitions(body.get("tools"))
    made: list[JsonDict] = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") not in tuple(_ROLES):
            raise _refused(f"{where}.role", "must be `user`, `assistant` or `system`")
        if unknown := {name for name, value in message.items() if value is not None} - {"role", "content"}:
            raise _refused(f"{where}.{min(unknown)[:64]}", "unknown field of a message")
        content = message.get("content")
        if isinstance(content, str):
            made.append({"role": message["role"], "content": content})
        elif isinstance(content, list):
            made += _ROLES[message["role"]](_loaded(content, deferred, f"{where}.content"), where)
        else:
            raise _refused(f"{where}.content", "must be a string or a list of blocks")
    if not made:
        raise _refused("messages", "messages must not be empty")
    return made


def _definitions(tools: object) -> dict[str, str]:
    """Tool name → its definition as text, which is what a model sees of a tool that is loaded late."""
    found: dict[str, str] = {}
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            shown = {name: tool[name] for name in ("name", "description", "input_schema") if name in tool}
            found[tool["name"]] = orjson.dumps(shown).decode()
    return found


def _loaded(blocks: list[Any], definitions: Mapping[str, str], where: str) -> list[Any]:
    """The blocks with each `tool_reference` in a tool result as the text of the tool's definition.

    Anthropic expands them in place too. So the tools before do not change, and the conversation stays one prefix.
    """
    return [
        block | {"content": [_reference(part, definitions, f"{where}.{index}.content") for part in block["content"]]}
        if isinstance(block, dict) and isinstance(block.get("content"), list)
        else block
        for index, block in enumerate(blocks)
    ]


def _reference(part: Any, definitions: Mapping[str, str], where: str) -> Any:
    if not isinstance(part, dict) or part.get("type") != "tool_reference":
        return part
    name = part.get("tool_name")
    if not isinstance(name, str) or name not in definitions:
        raise _refused(where, f"`tool_reference` names {str(name)[:64]!r}, which is not in `tools`")
    return {"type": "text", "text": f"{definitions[name]}\n"}


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
    if block.get("is_error") is True:
        content = _as_error(content or "")
    return {"role": "tool", "tool_call_id": call_id, "content": content or ""}


def _as_error(content: str | list[JsonDict]) -> str | list[JsonDict]:
    """The content of a result that is an error, which says so."""
    if isinstance(content, list):
        return [{"type": "text", "text": ERROR}, *content]
    return content if content.lstrip().lower().startswith("error") else f"{ERROR}{content}".strip()


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
        said = (block.get("title"), block.get("context"), source.get("data"))
        return {"type": "text", "text": SEPARATOR.join(text for text in said if isinstance(text, str) and text)}
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
    kind = str(block.get("type"))
    if kind in BLOCKS:
        said = {name for name, value in block.items() if value is not None}
        if unknown := said - BLOCKS[kind] - {"type", "cache_control"}:
            raise _refused(f"{where}.{min(unknown)[:64]}", f"unknown field of a block of type {kind!r}")
    return kind


def _tools(body: JsonDict) -> JsonDict:
    chat: JsonDict = {}
    if tools := body.get("tools"):
        if not isinstance(tools, list):
            raise _refused("tools", "must be a list")
        made = [_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]
        chat["tools"] = [one for one, tool in zip(made, tools, strict=True) if tool.get("defer_loading") is not True]
        if not chat["tools"]:
            raise _refused("tools", "at least one tool must not have `defer_loading`")
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
    if (schema := client_tool(tool.get("type"), tool["name"])) is not None:
        tool = schema | {name: value for name, value in tool.items() if name in ("name", "strict")}
    elif tool.get("type") not in (None, "custom") or not isinstance(tool.get("input_schema"), dict):
        kind = str(tool.get("type"))[:64]
        raise _refused(
            where, f"a tool must have an `input_schema`; tools of type {kind!r} work with Anthropic's models only"
        )
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _output(config: Mapping[str, Any], form: object) -> JsonDict:
    chat: JsonDict = {}
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {"name": "output", "schema": form.get("schema"), "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(config.get("effort"), str):
        chat["reasoning_effort"] = config["effort"]
    return chat


def _refused(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_request", message, param=param)
