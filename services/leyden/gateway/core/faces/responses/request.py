"""From a Responses API request to the chat request that says the same. What has no chat form is refused by name."""

from typing import Any

from leyden.gateway.core.faces.responses.items import mapping, messages_of, refused
from leyden.gateway.core.prepare import JsonDict

KEPT = ("conversation", "previous_response_id")
"""What continues a conversation that the server keeps."""
UNSERVED = ("prompt", "context_management", "moderation")
"""What OpenAI's servers do around the model."""
TAKEN = frozenset(
    {
        *KEPT, *UNSERVED, "access_programs", "background", "image", "include", "input", "instructions",
        "max_output_tokens", "max_tool_calls", "messages", "metadata", "n", "parallel_tool_calls",
        "prompt_cache_options", "reasoning", "response_format", "store", "stream_options", "text", "tool_choice",
        "tools", "top_logprobs", "truncation",
    }
)  # fmt: skip
"""Fields that are translated, or are nothing to a chat engine; all others pass through as they are."""
LOGPROBS = "message.output_text.logprobs"


def chat_request(body: JsonDict) -> JsonDict:
    """The chat request. Raises a 400 `Refusal` with `param`."""
    _must_be_served(body)
    chat = {name: value for name, value in body.items() if name not in TAKEN}
    chat["messages"] = messages_of(body.get("instructions"), body.get("input"))
    chat |= _tools(body) | _text(body) | _logprobs(body)
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if (effort := mapping(body.get("reasoning"), "reasoning").get("effort")) is not None:
        chat["reasoning_effort"] = effort
    if body.get("stream") is True:
        chat["stream_options"] = {"include_usage": True}
    return chat


def _must_be_served(body: JsonDict) -> None:
    for name in KEPT:
        if body.get(name) is not None:
            raise refused("the gateway keeps no history: send all items of the conversation in `input`", name)
    for name in UNSERVED:
        if body.get(name):
            raise refused(f"`{name}` is not served here", name)
    if body.get("background") is True:
        raise refused("`background` is not served here: the gateway answers in the reply only", "background")
    if body.get("n") not in (None, 1):
        raise refused("a response is one: `n` must be 1", "n")
    mapping(body.get("metadata"), "metadata")


def _tools(body: JsonDict) -> JsonDict:
    given = body.get("tools")
    if given is not None and not isinstance(given, list):
        raise refused("`tools` must be a list", "tools")
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(given or ())]
    choice, tools = _choice(body.get("tool_choice"), tools)
    chosen = {} if choice is None or (not tools and choice in ("auto", "none")) else {"tool_choice": choice}
    if not tools:
        return chosen
    parallel = body.get("parallel_tool_calls")
    return {"tools": tools} | chosen | ({} if parallel is None else {"parallel_tool_calls": parallel})


def _tool(tool: object, where: str) -> JsonDict:
    fields = mapping(tool, where)
    if fields.get("type") != "function":
        kind = str(fields.get("type"))[:64]
        raise refused(f"the tool {kind!r} runs on OpenAI's servers: only function tools are served here", where)
    if not isinstance(fields.get("name"), str):
        raise refused(f"`{where}.name` must be a string", f"{where}.name")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {n: fields[n] for n in names if fields.get(n) is not None}}


def _choice(choice: object, tools: list[JsonDict]) -> tuple[Any, list[JsonDict]]:
    """The chat form of `tool_choice`, and the tools that it leaves."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice, tools
    fields = mapping(choice, "tool_choice")
    if fields.get("type") == "function" and isinstance(fields.get("name"), str):
        return {"type": "function", "function": {"name": fields["name"]}}, tools
    allowed = fields.get("tools")
    if fields.get("type") == "allowed_tools" and isinstance(allowed, list):
        names = [tool.get("name") for tool in allowed if isinstance(tool, dict)]
        return fields.get("mode") or "auto", [tool for tool in tools if tool["function"]["name"] in names]
    raise refused(f"the tool choice {str(fields.get('type'))[:64]!r} is not served here", "tool_choice")


def _text(body: JsonDict) -> JsonDict:
    text = mapping(body.get("text"), "text")
    chat = {} if text.get("verbosity") is None else {"verbosity": text["verbosity"]}
    form = mapping(text.get("format"), "text.format")
    kind = form.get("type", "text")
    if kind == "json_object":
        return chat | {"response_format": {"type": kind}}
    if kind == "json_schema":
        schema = {n: form[n] for n in ("name", "description", "schema", "strict") if form.get(n) is not None}
        return chat | {"response_format": {"type": kind, "json_schema": schema}}
    if kind != "text":
        raise refused(f"the format {str(kind)[:64]!r} is not served here", "text.format.type")
    return chat


def _logprobs(body: JsonDict) -> JsonDict:
    include = body.get("include")
    if include is not None and not isinstance(include, list):
        raise refused("`include` must be a list", "include")
    top = body.get("top_logprobs")
    if LOGPROBS not in (include or ()) and not top:
        return {}
    return {"logprobs": True} | ({} if top is None else {"top_logprobs": top})
