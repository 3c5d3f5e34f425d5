"""Command line of the ingest service."""

from leyden.ingest.app import build
from leyden.ingest.settings import IngestSettings
from leyden.service import main

if __name__ == "__main__":
    description = "Decodes OTLP, normalises every dialect to one span model, binds spans to rollouts."
    main("ingest", build, description, environment=IngestSettings)
