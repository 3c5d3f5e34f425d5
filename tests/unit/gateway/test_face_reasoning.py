"""An assistant's reasoning has one name on its way to an engine, whichever API brought it: the one that vLLM reads."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from leyden.gateway.core.faces import FACES
from leyden.gateway.core.faces.openai import OLD_REASONING, REASONING, reasoning_of

HM, SO = "Hm.", "So."
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": HM}, {"type": "text", "text": SO}]},
            {"role": "user", "content": "!"},
        ],
    },
    "/v1/responses": {
        "input": [
            {"role": "user", "content": "?"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": HM}]},
            {"role": "assistant", "content": SO},
            {"role": "user", "content": "!"},
        ],
    },
}


@pytest.mark.parametrize("route", BODIES)
def test_reasoning_goes_back_under_one_name(route: str) -> None:
    face = next(face for face in FACES if face.route == route)
    said = face.request({"model": "policy"} | BODIES[route])["messages"][1]
    assert said == {"role": "assistant", "content": SO, "reasoning": HM}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_by_either_name(name: str) -> None:
    assert reasoning_of({name: HM}) == HM
    assert reasoning_of({name: {"no": "text"}}) is None


def test_vllm_reads_and_writes_the_name() -> None:
    """Its text is read, as importing it takes half a minute."""
    if (vllm := find_spec("vllm")) is None:
        pytest.skip("vLLM is not installed")
    (folder,) = vllm.submodule_search_locations or ()  # type: ignore[misc]
    text = (Path(folder) / "entrypoints/openai/chat_completion/protocol.py").read_text()
    replies = text[text.index("class ChatMessage(") :]
    assert f"    {REASONING}: str | None = None" in replies[: replies.index("class ChatCompletionLogProb")]
    assert f'msg["{REASONING}"] = {OLD_REASONING}' in text
