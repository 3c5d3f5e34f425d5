"""Pure functions that turn decoded OTLP requests into spans of one model."""
