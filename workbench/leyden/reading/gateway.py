"""Finds the gateway to ask, and its key: given ones, those of the environment, or those of the stack that runs."""

import os
from dataclasses import dataclass
from pathlib import Path

from leyden.client.local_stack import local_stack
from leyden.reading.location import LogLocation
from leyden.stack.state import DataFolder, StackState


@dataclass(frozen=True)
class GatewayAddress:
    """URL and key of a gateway."""

    url: str
    api_key: str | None


def gateway_address(url: str | None, api_key: str | None, data_dir: Path) -> GatewayAddress | None:
    """The gateway at `url`, else LEYDEN_GATEWAY_URL, else of the stack that runs in `data_dir`; None if none does."""
    url = url or os.environ.get("LEYDEN_GATEWAY_URL")
    api_key = api_key or os.environ.get("LEYDEN_API_KEY")
    if url:
        return GatewayAddress(url.rstrip("/"), api_key)
    stack = local_stack(data_dir)
    return GatewayAddress(stack.gateway_url.rstrip("/"), api_key or stack.api_key) if stack is not None else None


def gateway_of_log(location: LogLocation, prefix: str, data_dir: Path) -> GatewayAddress | None:
    """The gateway that writes the topics under `prefix`; None if none runs, or it is not known to write them.

    The local stack's gateway writes to that stack's Kafka. Another one is taken for the log's if both are named in the
    environment. Topics of a replay have no gateway.
    """
    found = gateway_address(None, None, data_dir)
    if found is None or prefix != location.prefix:
        return None
    if (stack := stack_at(found.url, data_dir)) is not None:
        writes = stack.kafka_servers == location.kafka.bootstrap_servers
    else:
        writes = bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    return found if writes else None


def stack_at(url: str, data_dir: Path) -> StackState | None:
    """The state of the stack in `data_dir` if it runs and its gateway is at `url`."""
    state = DataFolder(data_dir).read_state()
    return state if state.is_running and state.gateway_url.rstrip("/") == url.rstrip("/") else None
