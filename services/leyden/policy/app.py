"""Composition root of the policy agent."""

import httpx

from leyden.clock import SystemClock
from leyden.policy.adapters import HttpEngine
from leyden.policy.core import Replica
from leyden.policy.handlers import PolicyAgent
from leyden.policy.settings import AgentSettings, PolicySection
from leyden.policy.topology import PUBLISHES, subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section


def build(runtime: Runtime) -> Service:
    """The agent for the engine at `LEYDEN_POLICY_ENGINE_URL`."""
    settings = AgentSettings()
    client = httpx.AsyncClient(
        base_url=settings.engine_url,
        timeout=httpx.Timeout(settings.swap_timeout_s, connect=5.0),
        headers={"authorization": f"Bearer {settings.engine_token}"} if settings.engine_token else {},
        trust_env=False,
    )
    replica = Replica(
        policy=settings.name or load_section(runtime.settings.run_file, "policy", PolicySection).name,
        name=settings.replica,
        endpoint=settings.announced_endpoint,
    )
    agent = PolicyAgent(HttpEngine(client), runtime.publisher, SystemClock(), replica)

    async def follow() -> None:
        await agent.follow(settings.probe_s)

    return Service(
        subscriptions=subscriptions(agent),
        publishes=PUBLISHES,
        beside=[follow],
        after=[client.aclose],
        ready=agent.ready,
    )
