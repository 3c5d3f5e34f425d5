"""ingest: OTLP requests in, spans of one model out. Stateless; decides nothing about rewards."""
