"""The gateway service: an OpenAI-compatible model API, OTLP traces, tasks and rollouts, for agents and runners."""
