"""OTLP requests as the gateway sees them: unpacked, looked at from the outside, cut to size. Never decoded whole."""
