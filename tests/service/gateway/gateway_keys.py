"""What the tests of API keys do again and again."""

from typing import Any

import httpx

KEYS = "/leyden/v1/keys"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


async def made(http: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    answer = await http.post(KEYS, json={"name": "test"} | wanted)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def call(http: httpx.AsyncClient, key: str, model: str = "policy", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES} | more
    return await http.post(CHAT, json=body, headers=bearer(key))
