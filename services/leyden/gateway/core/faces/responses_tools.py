"""Tools of the Responses API as chat functions, and the names of calls back.

Clients run `function` and `custom` tools, also inside a `namespace`. Other tools run on OpenAI's servers, or have no
chat form: where the model may choose, they are left out and the reply's header names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict

SEPARATOR = "__"
"""Between namespace and name in a chat function's name."""
MAX_LEFT_OUT = 16
CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class ToolName:
    """A tool as its client names it."""

    name: str
    namespace: str | None = None
    custom: bool = False
    """Whether its input is a text, not an object."""


@dataclass(slots=True)
class Tools:
    """The tools of a request."""

    functions: list[JsonDict] = field(default_factory=list)
    """In chat form."""
    names: dict[str, ToolName] = field(default_factory=dict)
    """Chat function name → the client's name."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Types of tools that cannot be served → the first place of each."""


def chat_name(name: str, namespace: object) -> str:
    """A tool's name in chat."""
    if not isinstance(namespace, str) or not namespace:
        return name
    return f"{namespace}{'' if namespace.endswith(SEPARATOR) else SEPARATOR}{name}"


def custom_arguments(text: str) -> str:
    """The chat arguments of a custom tool's input."""
    return orjson.dumps({"input": text}).decode()


def custom_input(arguments: str) -> str:
    """A custom tool's input; the arguments themselves if the model wrote something else."""
    try:
        said = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = said.get("input") if isinstance(said, dict) else None
    return text if isinstance(text, str) else arguments


def tools_of(body: Mapping[str, Any]) -> Tools:
    """The tools of a request. Raises a 400 `Refusal` that names an invalid one."""
    given = body.get("tools")
    if given is not None and not isinstance(given, list):
        raise _refused("`tools` must be a list", "tools")
    tools = Tools()
    for index, tool in enumerate(given or ()):
        where = f"tools[{index}]"
        if isinstance(tool, dict) and tool.get("type") == "namespace":
            _namespace(tools, tool, where)
        else:
            _add(tools, tool, None, where)
    return tools


def chat_tools(body: Mapping[str, Any]) -> JsonDict:
    """`tools`, `tool_choice` and `parallel_tool_calls` of the chat request. Raises a 400 `Refusal`."""
    tools = tools_of(body)
    choice, functions = _choice(body.get("tool_choice"), tools)
    chosen = {} if choice is None or (not functions and choice in ("auto", "none")) else {"tool_choice": choice}
    if not functions:
        return chosen
    parallel = body.get("parallel_tool_calls")
    return {"tools": functions} | chosen | ({} if parallel is None else {"parallel_tool_calls": parallel})


def _namespace(tools: Tools, group: JsonDict, where: str) -> None:
    name, inner = group.get("name"), group.get("tools")
    if not isinstance(name, str) or not name:
        raise _refused(f"`{where}.name` must be a string", f"{where}.name")
    if not isinstance(inner, list):
        raise _refused(f"`{where}.tools` must be a list", f"{where}.tools")
    for index, tool in enumerate(inner):
        _add(tools, tool, name, f"{where}.tools[{index}]")


def _add(tools: Tools, tool: object, namespace: str | None, where: str) -> None:
    if not isinstance(tool, dict):
        raise _refused(f"`{where}` must be an object", where)
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        tools.left_out.setdefault(str(kind)[:64], where)
        return
    name = tool.get("name")
    if not isinstance(name, str):
        raise _refused(f"`{where}.name` must be a string", f"{where}.name")
    called = chat_name(name, namespace)
    if called in tools.names:
        raise _refused(f"two tools are called `{called}`", f"{where}.name")
    tools.names[called] = ToolName(name, namespace, kind == "custom")
    fields = _custom(tool) if kind == "custom" else tool
    function = {n: fields[n] for n in ("description", "parameters", "strict") if fields.get(n) is not None}
    tools.functions.append({"type": "function", "function": {"name": called} | function})


def _custom(tool: JsonDict) -> JsonDict:
    """A custom tool as a function with one text; a grammar becomes part of the description."""
    form = tool.get("format")
    grammar = form.get("definition") if isinstance(form, dict) and form.get("type") == "grammar" else None
    parts = [text for text in (tool.get("description"), grammar) if isinstance(text, str) and text]
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {"description": "\n\n".join(parts) or None, "parameters": schema}


def _choice(choice: object, tools: Tools) -> tuple[Any, list[JsonDict]]:
    """The chat form of `tool_choice`, and the functions that it leaves."""
    if choice is None or choice in CHOICES:
        _must_be_free(choice, tools)
        return choice, tools.functions
    fields = choice if isinstance(choice, dict) else {}
    kind, name = fields.get("type"), fields.get("name")
    if kind in ("function", "custom") and isinstance(name, str):
        return {"type": "function", "function": {"name": chat_name(name, fields.get("namespace"))}}, tools.functions
    allowed = fields.get("tools")
    if kind == "allowed_tools" and isinstance(allowed, list):
        mode = fields.get("mode") or "auto"
        _must_be_free(mode, tools)
        names = {tool.get("name") for tool in allowed if isinstance(tool, dict) and isinstance(tool.get("name"), str)}
        called = {full for full, tool in tools.names.items() if full in names or tool.name in names}
        return mode, [one for one in tools.functions if one["function"]["name"] in called]
    shown = str(kind if isinstance(choice, dict) else choice)[:64]
    raise _refused(f"the tool choice {shown!r} is not supported", "tool_choice")


def _must_be_free(choice: object, tools: Tools) -> None:
    """Refuse tools that cannot be served where the model must call one: it might have chosen those."""
    for kind, where in tools.left_out.items() if choice == "required" else ():
        raise _refused(
            f"the tool {kind!r} runs on OpenAI's servers: `required` needs function or custom tools only", where
        )


def _refused(message: str, param: str) -> Refusal:
    return Refusal(400, "invalid_request", message, param=param)
