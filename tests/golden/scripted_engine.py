"""A policy server whose answers are a script, and whose token ids follow from the messages alone.

A message is a marker, its words (each with an id of its own, derived from the word) and an end marker, so that a
history that an agent sends back unchanged is exactly the tokens that were sampled, and one that it edited is not.
"""

import hashlib
import json
import re
import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

VERSION = "policy@1"
ROLES = {"system": 1, "developer": 1, "user": 2, "assistant": 3, "tool": 4}
END = 5
LOGPROB = -0.25


def words(text: str) -> list[int]:
    """One id for each word or mark of `text`."""
    found = re.findall(r"\w+|[^\w\s]", text)
    return [100 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) % 40_000 for word in found]


def body_ids(message: dict[str, Any]) -> list[int]:
    """The message's own tokens, its end included."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    ids = words(content)
    for call in message.get("tool_calls") or []:
        ids += words(f"{call['function']['name']} {call['function']['arguments']}")
    return [*ids, END]


def prompt_ids(body: dict[str, Any]) -> list[int]:
    """The prompt as a chat template would make it: tools, messages, and the marker after which the model writes."""
    ids = words(" ".join(tool["function"]["name"] for tool in body.get("tools") or []))
    for message in body["messages"]:
        ids += [ROLES[message["role"]], *body_ids(message)]
    return [*ids, ROLES["assistant"]]


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The script: hand over if one can, ask the tool, ask again after its first error, then say the number."""
    last = body["messages"][-1]
    if "[[ ## " in str(body["messages"][0]["content"]):
        return in_fields(str(body["messages"][0]["content"]), str(last["content"]))
    offered = [tool["function"]["name"] for tool in body.get("tools") or []]
    question = next(str(m["content"]) for m in body["messages"] if m["role"] == "user")
    results = [m for m in body["messages"] if m["role"] == "tool"]
    if handoff := next((name for name in offered if name.startswith("transfer_to")), None):
        return calling(handoff, {}, 0)
    answered = last["role"] == "tool" or "Observation:" in str(last["content"]) or "Error:" in str(last["content"])
    if not answered or "assistant" in str(last["content"]):
        return calling("population", {"city": "Atlantis" if "Atlantis" in question else "Leiden"}, len(results))
    if "no such city" in str(last["content"]):
        return calling("population", {"city": "Delft"}, len(results))
    number = re.search(r"\d+(?!.*\d)", str(last["content"]), re.DOTALL)
    if "final_answer" in offered:
        return calling("final_answer", {"answer": f"It is {number.group() if number else 'unknown'}."}, len(results))
    return {"role": "assistant", "content": f"It is {number.group() if number else 'unknown'}."}


def in_fields(asked: str, said: str) -> dict[str, Any]:
    """The same script for DSPy, which asks for marked fields of a text and calls the tools itself."""
    if "[[ ## next_tool_name ## ]]" not in asked:
        fields = {"reasoning": "I asked.", "answer": "It is 106000."}
    elif "observation_1" in said:
        fields = {"next_thought": "I know.", "next_tool_name": "finish", "next_tool_args": "{}"}
    else:
        city = "Delft" if "observation_0" in said else "Atlantis"
        fields = {
            "next_thought": "I ask.",
            "next_tool_name": "population",
            "next_tool_args": json.dumps({"city": city}),
        }
    text = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())
    return {"role": "assistant", "content": f"{text}\n\n[[ ## completed ## ]]"}


def calling(name: str, arguments: dict[str, str], number: int) -> dict[str, Any]:
    """An answer that asks for a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": f"call_{number}", "type": "function", "function": function}
    ]}  # fmt: skip


async def chat(request: Request) -> Response:
    """`/v1/chat/completions` as vLLM answers it, with token ids and logprobs."""
    body = await request.json()
    message, prompt = answer(body), prompt_ids(body)
    ids = body_ids(message)
    entries = [{"token": str(token), "logprob": LOGPROB, "bytes": None, "top_logprobs": []} for token in ids]
    choice = {
        "index": 0, "message": message, "token_ids": ids, "logprobs": {"content": entries},
        "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
    }  # fmt: skip
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids), "total_tokens": len(prompt) + len(ids)}
    reply = {
        "id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [choice], "usage": usage, "prompt_token_ids": prompt,
    }  # fmt: skip
    told = {"x-leyden-policy-version": VERSION}
    if body.get("stream"):
        return StreamingResponse(iter(chunks(reply)), media_type="text/event-stream", headers=told)
    return JSONResponse(reply, headers=told)


def chunks(reply: dict[str, Any]) -> list[str]:
    """The reply as a stream: one piece with all of it, one with the counts."""
    head = {name: reply[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    [choice], usage = reply["choices"], reply["usage"]
    calls = [{"index": n, **call} for n, call in enumerate(choice["message"].get("tool_calls") or [])]
    delta = choice["message"] | ({"tool_calls": calls} if calls else {})
    piece = {name: choice[name] for name in ("index", "token_ids", "logprobs", "finish_reason")} | {"delta": delta}
    pieces = [{"choices": [piece], "prompt_token_ids": reply["prompt_token_ids"]}, {"choices": [], "usage": usage}]
    return [*(f"data: {json.dumps({**head, **one})}\n\n" for one in pieces), "data: [DONE]\n\n"]


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
