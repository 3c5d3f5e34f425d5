"""A model call passes through few files, and the README's table of its steps names them."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest

import leyden.gateway.app
from service.gateway.gateway_fakes import REF, Bench

HOME = Path(leyden.gateway.app.__file__).parent
BESIDE = {"metrics.py", "http/protocol.py"}
"""The list of metrics, and what stamps a connection's requests with the time."""
MOST = 12


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_call_passes_through_a_dozen_files_which_the_readme_names(
    gate: Bench, http: httpx.AsyncClient, stream: bool
) -> None:
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(HOME):
            seen.add(str(path.relative_to(HOME)))

    body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    sys.setprofile(note)
    try:
        reply = await http.post(f"/rollouts/{REF.trace_id}/v1/chat/completions", json=body)
        await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    assert reply.status_code == 200
    way = seen - BESIDE
    assert len(way) <= MOST, sorted(way)
    table = (HOME / "README.md").read_text().partition("## How a call goes")[2].partition("\n## ")[0]
    assert {path for path in way if f"`{path}`" not in table} == set()
