"""The service that agents talk to: OpenAI-compatible model API, OTLP traces, tasks and rollouts."""
