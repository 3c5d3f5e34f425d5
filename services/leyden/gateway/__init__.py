"""The only door for agents: OpenAI-compatible model API, OTLP traces, tasks and rollouts."""
