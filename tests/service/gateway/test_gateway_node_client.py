"""The model API, by the official OpenAI client for Node."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from aiohttp import web

from bundled import NODE
from service.gateway.gateway_fakes import API_KEY, REF, Bench
from service.gateway.gateway_scripts import Says, fails, tool_call


async def test_an_agent_for_node_runs_unchanged(gate: Bench, node_folder: Path) -> None:
    gate.engine.reply = _scripted
    seen = await _run(node_folder, f"{gate.url}/rollouts/{REF.trace_id}/v1")
    ids = [call.call_id for call in gate.log.calls]
    assert seen["models"] == ["policy", "policy@3"]
    assert seen["plain"] == {
        "request_id": ids[0], "model": "policy@3", "texts": ["Hi!", "Hi!"], "logprobs": [-0.5, -0.5], "usage": 7,
    }  # fmt: skip
    assert seen["streamed"] == {"text": "Hi!", "finish": "stop", "usage": 5}
    assert seen["tools"] == {"finish": "tool_calls", "name": "weather", "city": "Oslo", "answer": "Cold."}
    unauthorized = seen["unauthorized"]
    assert (unauthorized["expected"], unauthorized["status"], unauthorized["type"]) == (
        True, 401, "authentication_error",
    )  # fmt: skip
    assert unauthorized["request_id"]
    refused = seen["refused"]
    assert (refused["expected"], refused["status"], refused["request_id"]) == (True, 400, ids[-1])
    assert "not like that" in refused["message"]
    assert [(call.rollout_id, call.streamed, call.error) for call in gate.log.calls] == [
        (REF.rollout_id, False, None),
        (REF.rollout_id, True, None),
        (REF.rollout_id, True, None),
        (REF.rollout_id, False, None),
        (REF.rollout_id, False, "engine 400: not like that"),
    ]


async def _scripted(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if body.get("user") == "refuse me":
        return await fails(400, "not like that")(request, body)
    if body.get("tool_choice") == "required":
        says = Says(None, [tool_call("c1", "weather", '{"city": "Oslo"}')], finish="tool_calls")
    else:
        says = Says("Cold." if body["messages"][-1]["role"] == "tool" else "Hi!")
    return await says(request, body)


async def _run(folder: Path, base_url: str) -> Any:
    node = await asyncio.create_subprocess_exec(
        NODE, "client.mjs", base_url, API_KEY, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            out, err = await node.communicate()
    except TimeoutError:
        node.kill()
        await node.wait()
        raise
    assert node.returncode == 0, err.decode()
    return json.loads(out)
