"""The ingest service: turns OTLP requests into spans of one model. Stateless; knows nothing about rewards."""
