"""A gateway on a real socket, and this process connected to it."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

import leyden
from client_support import KEY, FakeGateway
from leyden.client.session import close


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def connected(gateway: FakeGateway) -> Iterator[FakeGateway]:
    leyden.init(gateway.url, KEY, tracer_provider=TracerProvider(shutdown_on_exit=False), retry_timeout_s=10.0)
    yield gateway
    close()
