"""`/v1/responses`: OpenAI's Responses API, translated to and from chat completions.

A request here has its whole conversation: `handlers/kept.py` adds what it refers to, and keeps the response.
In a stream, a text is done when another item begins. Function calls are done only when the chat reply gives its finish
reason: an agent executes a call that is done, and what it executes must be in the record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leyden.gateway.core.faces import responses_reply as reply
from leyden.gateway.core.faces.openai import Face, StreamFace, named_event, reasoning_of
from leyden.gateway.core.faces.responses_reply import response, response_id
from leyden.gateway.core.faces.responses_request import chat_request
from leyden.gateway.core.faces.responses_tools import MAX_LEFT_OUT, ToolName, custom_input, tools_of
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict

NAMELESS = ToolName("")


@dataclass(slots=True)
class _Part:
    """One part of an item's content: text, refusal or reasoning."""

    kind: str
    index: int
    text: str = ""
    logprobs: list[JsonDict] = field(default_factory=list)

    def shown(self) -> JsonDict:
        if self.kind == "output_text":
            return reply.text_part(self.text, self.logprobs)
        return {"type": self.kind, ("refusal" if self.kind == "refusal" else "text"): self.text}

    def told(self, name: str, text: str, logprobs: list[JsonDict]) -> JsonDict:
        """The fields of a delta or done event about this part."""
        fields: JsonDict = {"content_index": self.index, name: text}
        return fields | ({"logprobs": logprobs} if self.kind == "output_text" else {})


@dataclass(slots=True)
class _Item:
    """One output item, filled as chunks arrive."""

    kind: str
    index: int
    stem: str
    call_id: str | None = None
    tool: ToolName = NAMELESS
    arguments: str = ""
    parts: list[_Part] = field(default_factory=list)
    announced: bool = False
    done: bool = False

    def shown(self, status: str) -> JsonDict:
        if self.kind == "function_call":
            return reply.call_item(
                stem=self.stem,
                index=self.index,
                call_id=self.call_id,
                name=self.tool,
                arguments=self.arguments,
                status=status,
            )
        if self.kind == "message":
            return reply.message_item(self.stem, self.index, [part.shown() for part in self.parts], status)
        text = "".join(part.text for part in self.parts) if self.parts else None
        return reply.reasoning_item(self.stem, self.index, text, status)


class ResponseEvents(StreamFace):
    """The events of one streamed response."""

    def __init__(self, body: JsonDict) -> None:
        self._body = body
        self._names = tools_of(body).names
        self._number = 0
        self._opened: JsonDict | None = None
        self._items: list[_Item] = []
        self._calls: dict[int, _Item] = {}
        self._finish_reason: str | None = None
        self._usage: object = None
        self._out: list[bytes] = []

    def feed(self, chunk: JsonDict) -> list[bytes]:
        """The events for a chunk."""
        self._open(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._take(choice)
        return self._told()

    def end(self) -> list[bytes]:
        """Events that finish open items. `ended` has the last one, with the whole output."""
        self._open({})
        self._finish()
        assert self._opened is not None
        output = [item.shown("completed") for item in self._items]
        final = reply.ended(self._opened, output, self._finish_reason, self._usage)
        self.kept = final
        return self._told()

    def ended(self, kept: JsonDict) -> list[bytes]:
        self._tell(f"response.{kept['status']}", response=kept)
        return self._told()

    def error(self, refusal: Refusal) -> bytes:
        """`error`, and `response.failed` if the response had started: clients look for either of them."""
        self._tell("error", code=refusal.code, message=refusal.message, param=refusal.param)
        if self._opened is not None:
            error = {"code": "server_error", "message": refusal.message}
            output = [item.shown("completed" if item.done else "incomplete") for item in self._items]
            failed = self._opened | {"status": "failed", "error": error, "output": output}
            self._tell("response.failed", response=failed)
        return b"".join(self._told())

    def _open(self, chunk: Mapping[str, Any]) -> None:
        if self._opened is None:
            self._opened = reply.envelope(chunk, self._body)
            self._tell("response.created", response=self._opened)
            self._tell("response.in_progress", response=self._opened)

    def _take(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or {}
        if thought := reasoning_of(delta):
            self._say("reasoning", "reasoning_text", thought, [])
        if text := delta.get("content"):
            self._say("message", "output_text", text, reply.logprobs_of(choice.get("logprobs")))
        if refusal := delta.get("refusal"):
            self._say("message", "refusal", refusal, [])
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
            self._finish()

    def _say(self, kind: str, part_kind: str, text: str, logprobs: list[JsonDict]) -> None:
        item = self._current(kind)
        if not item.parts or item.parts[-1].kind != part_kind:
            part = _Part(part_kind, len(item.parts))
            item.parts.append(part)
            self._about(item, "response.content_part.added", content_index=part.index, part=part.shown())
        part = item.parts[-1]
        part.text += text
        part.logprobs += logprobs
        self._about(item, f"response.{part_kind}.delta", **part.told("delta", text, logprobs))

    def _current(self, kind: str) -> _Item:
        """The open item of a kind; starts one if the last item is of another kind or done."""
        last = self._items[-1] if self._items else None
        if last and last.kind == kind and not last.done:
            return last
        self._end_last()
        return self._begin(_Item(kind, len(self._items), self._stem()))

    def _begin(self, item: _Item) -> _Item:
        self._items.append(item)
        return self._announce(item)

    def _announce(self, item: _Item) -> _Item:
        item.announced = True
        self._tell("response.output_item.added", output_index=item.index, item=item.shown("in_progress"))
        return item

    def _call(self, delta: Mapping[str, Any]) -> None:
        """Add a canonical piece of a tool call. The call is announced once its name is known."""
        function = delta.get("function") or {}
        index = delta["index"]
        if index not in self._calls:
            self._end_last()
            self._calls[index] = _Item("function_call", len(self._items), self._stem())
            self._items.append(self._calls[index])
        item = self._calls[index]
        item.call_id = item.call_id or delta.get("id")
        name, arguments = function.get("name"), function.get("arguments")
        if not item.announced and (name or arguments):
            item.tool = self._names.get(name, ToolName(name)) if name else NAMELESS
            self._announce(item)
        if arguments:
            item.arguments += arguments
            if not item.tool.custom:
                self._about(item, "response.function_call_arguments.delta", delta=arguments)

    def _end_last(self) -> None:
        """Finish the last item, as another begins. Function calls stay open until the reply is complete."""
        if self._items and self._items[-1].kind != "function_call":
            self._close(self._items[-1], "completed")

    def _finish(self) -> None:
        """Finish all open items, as the reply is complete. An empty reply becomes an empty message."""
        if not self._items:
            self._say("message", "output_text", "", [])
        cut = self._finish_reason in reply.INCOMPLETE
        for item in self._items:
            self._close(item, "incomplete" if cut and item is self._items[-1] else "completed")

    def _close(self, item: _Item, status: str) -> None:
        if item.done:
            return
        item.done = True
        if item.kind == "function_call":
            if not item.announced:
                self._announce(item)
            self._end_call(item)
        for part in item.parts:
            name = "refusal" if part.kind == "refusal" else "text"
            self._about(item, f"response.{part.kind}.done", **part.told(name, part.text, part.logprobs))
            self._about(item, "response.content_part.done", content_index=part.index, part=part.shown())
        self._tell("response.output_item.done", output_index=item.index, item=item.shown(status))

    def _end_call(self, item: _Item) -> None:
        """A custom tool's input comes in one piece: its text is inside the arguments' JSON."""
        if item.tool.custom:
            text = custom_input(item.arguments)
            self._about(item, "response.custom_tool_call_input.delta", delta=text)
            self._about(item, "response.custom_tool_call_input.done", input=text)
        else:
            fields = {"name": item.tool.name, "arguments": item.arguments}
            self._about(item, "response.function_call_arguments.done", **fields)

    def _stem(self) -> str:
        assert self._opened is not None
        return str(self._opened["id"]).removeprefix("resp_")

    def _about(self, item: _Item, event: str, /, **fields: Any) -> None:
        kind = "custom_tool_call" if item.tool.custom else item.kind
        self._tell(event, item_id=reply.item_id(kind, item.stem, item.index), output_index=item.index, **fields)

    def _tell(self, event: str, /, **fields: Any) -> None:
        self._out.append(named_event(event, {"type": event, "sequence_number": self._number, **fields}))
        self._number += 1

    def _told(self) -> list[bytes]:
        out, self._out = self._out, []
        return out


class ResponsesFace(Face):
    """OpenAI's Responses API."""

    route = "/v1/responses"
    keeps = True

    def request(self, body: JsonDict) -> JsonDict:
        return chat_request(body)

    def left_out(self, body: JsonDict) -> tuple[str, ...]:
        return tuple(tools_of(body).left_out)[:MAX_LEFT_OUT]

    def response_id(self, chat_id: str) -> str:
        return response_id(chat_id)

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return response(shown, body)

    def stream(self, body: JsonDict) -> ResponseEvents:
        return ResponseEvents(body)


RESPONSES = ResponsesFace()


__all__ = ["RESPONSES", "ResponsesFace"]
