"""Command line of the ingest service."""

from leyden.ingest.app import build
from leyden.service import main

if __name__ == "__main__":
    main("ingest", build, "Decodes OTLP, normalises every dialect to one span model, binds spans to rollouts.")
