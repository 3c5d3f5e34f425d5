"""`python -m leyden.gateway`."""

from leyden.gateway.app import build
from leyden.service import main

if __name__ == "__main__":
    main("gateway", build, "The door for agents: model API, OTLP traces, tasks and rollouts.")
