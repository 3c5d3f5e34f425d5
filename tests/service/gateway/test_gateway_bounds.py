"""How many requests and connections a gateway serves at a time, and what one too many is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

import http_servers
from leyden.gateway.http.protocol import StampedProtocol, bounded
from leyden.service import http_config
from service.gateway.gateway_fakes import API_KEY, Bench, bench
from waiting import until

V1 = "/leyden/v1"
KEY = {"authorization": f"Bearer {API_KEY}"}
CLAIM = {"runner": "r", "wait_s": 30}


def client(gate: Bench, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gate.url, headers=KEY, trust_env=False, timeout=20, **more)


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"leyden_gateway_{name}", labels) or 0.0


@asynccontextmanager
async def served(gate: Bench, most: int) -> AsyncIterator[None]:
    """The gateway behind the service's own server, with a bound on connections."""
    protocol = bounded(StampedProtocol, max_header_bytes=4096, max_headers=32, max_connections=most, retry_after_s=3.0)
    async with http_servers.served(http_config(gate.gateway.routes(), "127.0.0.1", 0, protocol)) as gate.url:
        yield


async def test_claims_that_wait_have_a_bound_of_their_own() -> None:
    async with bench(max_concurrent_claims=1, retry_after_s=2) as gate, client(gate) as http:
        waiting = asyncio.ensure_future(http.post(f"{V1}/rollouts/claim", json=CLAIM))
        await until(lambda: gauge("in_flight_requests", kind="claims") == 1)
        refused = await http.post(f"{V1}/rollouts/claim", json=CLAIM)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert refused.json()["error"]["type"] == "overloaded"
        assert (await http.get(f"{V1}/queue")).status_code == 200, "others are not held up by claims"
        assert (await http.post(f"{V1}/tasks", json={"tasks": [{"task_id": "t"}]})).status_code == 201
        await gate.drain_tasks()
        assert len((await waiting).json()["rollouts"]) == 1
        assert gauge("in_flight_requests", kind="claims") == 0
        assert (await http.post(f"{V1}/rollouts/claim", json={"runner": "r"})).status_code == 200


async def test_a_claimer_that_leaves_gives_its_place_back() -> None:
    async with bench(max_concurrent_claims=1) as gate, client(gate) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(f"{V1}/rollouts/claim", json=CLAIM, timeout=0.2)
        await until(lambda: gauge("in_flight_requests", kind="claims") == 0)
        assert (await http.post(f"{V1}/rollouts/claim", json={"runner": "r"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/tasks"), ("GET", "/queue"), ("POST", "/queue/pause"), ("GET", "/keys"), ("POST", "/rollouts")],
)
async def test_one_request_too_many_is_a_503_everywhere_under_leyden(method: str, path: str) -> None:
    async with bench(max_concurrent_requests=1) as gate, client(gate) as http:
        gate.log.acknowledging.clear()
        held = asyncio.ensure_future(http.post(f"{V1}/tasks", json={"tasks": [{"task_id": "t"}]}))
        await until(lambda: gauge("in_flight_requests", kind="requests") == 1)
        refused = await http.request(method, V1 + path, json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        stranger = await http.request(method, V1 + path, headers={"authorization": "Bearer no"})
        assert stranger.status_code == 401, "who has no key learns nothing of the load"
        assert (await http.post(f"{V1}/rollouts/claim", json={"runner": "r"})).status_code == 200
        gate.log.acknowledging.set()
        assert (await held).status_code == 201
        assert (await http.get(f"{V1}/queue")).status_code == 200


async def test_one_connection_too_many_is_answered_and_closed_before_it_asks() -> None:
    async with bench() as gate, served(gate, most=2):
        port = int(gate.url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: gauge("connections") == 2)
        async with client(gate) as http:
            refused = await http.post("/v1/chat/completions", json={"model": "policy", "messages": []})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
        assert refused.json()["error"]["code"] == "too_many_connections"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            said = await reader.read()
        assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        writer.close()
        idle[0][1].close()
        await until(lambda: gauge("connections") == 1)
        async with client(gate) as http:
            assert (await http.get("/v1/models")).status_code == 200, "a place that is free is given again"
        idle[1][1].close()


async def test_who_is_turned_away_takes_nobodys_place() -> None:
    async with bench() as gate, served(gate, most=1):
        port = int(gate.url.rpartition(":")[2])
        first = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: gauge("connections") == 1)
        turned_away = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, _ in turned_away:
            assert b" 503 " in await reader.readline()
        first[1].close()
        await until(lambda: gauge("connections") == 0)
        async with client(gate) as http:
            assert (await http.get("/v1/models")).status_code == 200
        for _, writer in turned_away:
            writer.close()
