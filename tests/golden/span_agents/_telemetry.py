"""What every recorded agent shares: a tracer that exports to OTEL_EXPORTER_OTLP_ENDPOINT, the tool, the question."""

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

QUESTION = os.environ["QUESTION"]
TOOL = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "How many people live in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def tracing() -> TracerProvider:
    """The global tracer provider."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def logging():  # type: ignore[no-untyped-def]  # the logs SDK is private, and not everywhere
    """The global logger provider: some instrumentations say what was said in log records."""
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(provider)
    return provider


def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


def converse(client, run_tool=population):  # type: ignore[no-untyped-def]
    """The plain loop around an OpenAI client: ask, run the tools that were asked for, ask again."""
    import json

    messages = [{"role": "system", "content": "Use the tool."}, {"role": "user", "content": QUESTION}]
    while True:
        reply = client.chat.completions.create(model="policy", messages=messages, tools=[TOOL], temperature=0.5)
        message = reply.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            try:
                content = run_tool(**json.loads(call.function.arguments))
            except ValueError as error:
                content = f"error: {error}"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
