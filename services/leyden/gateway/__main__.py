"""`python -m leyden.gateway`."""

from leyden.gateway.app import build
from leyden.service import main

if __name__ == "__main__":
    main("gateway", build, "The service that agents talk to: model API, OTLP traces, tasks and rollouts.")
