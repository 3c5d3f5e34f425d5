"""`python -m leyden.gateway`."""

from leyden.gateway.app import build
from leyden.gateway.settings import GatewaySettings
from leyden.service import main

if __name__ == "__main__":
    description = "The service that agents talk to: model API, OTLP traces, tasks and rollouts."
    main("gateway", build, description, environment=GatewaySettings)
