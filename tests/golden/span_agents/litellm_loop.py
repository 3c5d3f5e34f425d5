"""A plain loop around LiteLLM, under its own OpenTelemetry callback."""

import os
import time
from types import SimpleNamespace

os.environ["OTEL_EXPORTER"] = "otlp_http"
os.environ["OTEL_ENDPOINT"] = os.environ["AT"] + "/v1/traces"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from _telemetry import converse
from opentelemetry import trace

litellm.callbacks = ["otel"]
litellm.telemetry = False


def create(model, **options):  # type: ignore[no-untyped-def]
    """As the OpenAI client's method."""
    return litellm.completion(model=f"openai/{model}", **options)


print(converse(SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))))
time.sleep(1)  # its callbacks run in threads
trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
