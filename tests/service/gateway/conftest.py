"""Fixtures of the gateway's service tests."""

from collections.abc import AsyncIterator

import httpx
import pytest
from openai import AsyncOpenAI

from service.gateway.gateway_fakes import API_KEY, Bench, bench


@pytest.fixture
async def gate() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


@pytest.fixture
async def http(gate: Bench) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=gate.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def agent(gate: Bench) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{gate.url}/v1", api_key=API_KEY, max_retries=0, http_client=httpx.AsyncClient(trust_env=False)
    ) as client:
        yield client
