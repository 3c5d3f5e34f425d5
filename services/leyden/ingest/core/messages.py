"""Converts messages of every known format to chat messages: role, content, tool_calls, tool_call_id.

OpenAI chat messages are kept as they are. Other formats (parts of the GenAI conventions, LangChain's dumps, items of
the Responses API) are converted; fields that are not understood keep their names.
"""

from leyden.events import Json, JsonObject
from leyden.events.masked import is_masked
from leyden.ingest.core.parts import has_parts, of_parts, tool_call
from leyden.ingest.core.values import listed, mapping, objects, parsed, text

_ROLES = {"human": "user", "ai": "assistant", "developer": "system", "model": "assistant"}


def messages_of(value: Json) -> list[JsonObject]:
    """Chat messages from a list, a single message, or the JSON text of either. Plain text is a user message."""
    found = parsed(value)
    if isinstance(found, str) and found and not is_masked(found):
        return [{"role": "user", "content": found}]
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    messages: list[JsonObject] = []
    for item in found if isinstance(found, list) else (found,):
        inner = item if isinstance(item, dict) else parsed(item)
        if isinstance(inner, dict):
            messages += chat_messages(inner)
    return messages


def chat_messages(message: JsonObject) -> list[JsonObject]:
    """One message of any format as chat messages: several if it has the results of several tools; none if it has no
    role and no known format.
    """
    parts = message.get("parts")
    if isinstance(parts, list) or has_parts(parts := message.get("content")):
        assert isinstance(parts, list)
        role = text(message.get("role")) or "assistant"
        return of_parts(message, parts, _ROLES.get(role, role))
    kwargs = message.get("kwargs") if "lc" in message else message.get("data")
    if isinstance(kwargs, dict) and ("lc" in message or "type" in message):
        kind = message.get("id")
        named = text(kwargs.get("type")) or text(message.get("type"))
        named = named if named != "constructor" else None
        return [_of_langchain(kwargs, named or (str(kind[-1]) if isinstance(kind, list) and kind else ""))]
    if "role" not in message and isinstance(message.get("type"), str) and "content" in message:
        return [_of_langchain(message, str(message["type"]))]
    if message.get("type") == "function_call":
        asked = tool_call(message.get("call_id"), message.get("name"), message.get("arguments"))
        return [{"role": "assistant", "content": None, "tool_calls": [asked]}]
    if message.get("type") == "function_call_output":
        return [{"role": "tool", "tool_call_id": message.get("call_id"), "content": message.get("output")}]
    if is_masked(message.get("content")):
        message = {**message, "content": None}
    return [message] if isinstance(message.get("role"), str) else []


def _of_langchain(kwargs: JsonObject, kind: str) -> JsonObject:
    kind = kind.removesuffix("MessageChunk").removesuffix("Message").lower()
    found: JsonObject = {"role": _ROLES.get(kind, kind), "content": kwargs.get("content")}
    calls = [tool_call(c.get("id"), c.get("name"), c.get("args")) for c in objects(kwargs.get("tool_calls"))]
    if calls:
        found["tool_calls"] = list(calls)
    for name in ("tool_call_id", "name"):
        if (value := text(kwargs.get(name))) is not None:
            found[name] = value
    return found


def of_flat(items: list[JsonObject], envelope: str | None = None) -> list[JsonObject]:
    """Messages from flattened attributes: `role`, `content`, `tool_calls.{j}.(tool_call.)(function.)name`."""
    found = []
    for item in items:
        inner = item.get(envelope) if envelope else item
        if isinstance(inner, dict):
            found.append(_of_flat_one(inner))
    return found


def _of_flat_one(inner: JsonObject) -> JsonObject:
    message = {name: value for name, value in inner.items() if name not in ("tool_calls", "contents", "finish_reason")}
    parts: list[JsonObject] = []
    asked: list[JsonObject] = []
    for item in objects(inner.get("contents")):
        if (part := _flat_part(item)).get("type") == "tool_use":
            asked.append(item)
        else:
            parts.append(part)
    calls = [_flat_call(item) for item in list(objects(inner.get("tool_calls"))) or asked]
    called = inner.get("function_call")
    if isinstance(called, dict) and not calls:
        message.pop("function_call")
        calls.append(tool_call(called.get("id"), called.get("name"), called.get("arguments")))
    if calls:
        message["tool_calls"] = list(calls)
    if parts and "content" not in message:
        spoken = [part.get("text") for part in parts if part.get("type") == "text"]
        all_text = len(spoken) == len(parts) and all(isinstance(part, str) for part in spoken)
        message["content"] = "\n".join(map(str, spoken)) if all_text else list(parts)
    message.setdefault("content", None)
    if not isinstance(message.get("role"), str):
        message["role"] = "assistant"
    return message


def _flat_part(item: JsonObject) -> JsonObject:
    part = item.get("message_content", item)
    return part if isinstance(part, dict) else item


def _flat_call(item: JsonObject) -> JsonObject:
    call = item.get("tool_call", item)
    call = call if isinstance(call, dict) else {}
    function = call.get("function", call)
    function = function if isinstance(function, dict) else {}
    return tool_call(call.get("id"), function.get("name"), function.get("arguments"))


def finish_reasons_of(value: Json) -> list[str]:
    """Finish reasons found in the output messages."""
    return [reason for item in objects(value) if (reason := text(item.get("finish_reason")))]


def langchain_generations(value: Json) -> tuple[list[JsonObject], JsonObject]:
    """(Messages, metadata of the first) from a dump of LangChain's LLMResult; empty for anything else."""
    messages: list[JsonObject] = []
    metadata: JsonObject = {}
    for batch in listed(mapping(value).get("generations")):
        for generation in objects(batch):
            message = generation.get("message")
            if isinstance(message, dict):
                messages += chat_messages(message)
                kwargs = mapping(message.get("kwargs") or message.get("data") or message)
                metadata = metadata or _langchain_metadata(kwargs)
            elif isinstance(generation.get("text"), str):
                messages.append({"role": "assistant", "content": generation["text"]})
    return messages, metadata


def _langchain_metadata(kwargs: JsonObject) -> JsonObject:
    """The response's metadata; its id may be the message's, which else is LangChain's own, of the run."""
    metadata, id_ = mapping(kwargs.get("response_metadata")), text(kwargs.get("id"))
    is_run = id_ is not None and id_.startswith(("run-", "lc_run-"))
    return metadata if id_ is None or is_run or "id" in metadata else {**metadata, "id": id_}
