"""A program's own evidence: an HTTP request that fails, a query that finds rows, a process that exits with 3."""

import os
import sqlite3
import subprocess
import sys

import httpx
import requests
from _telemetry import tracing
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

provider = tracing()
tracer = provider.get_tracer("agent")
SQLite3Instrumentor().instrument(tracer_provider=provider)
RequestsInstrumentor().instrument(tracer_provider=provider)
requests.post(f"{os.environ['AT']}/v1/chat/completions", timeout=5)
RequestsInstrumentor().uninstrument()
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
HTTPXClientInstrumentor().instrument(tracer_provider=provider)
httpx.get(f"{os.environ['AT']}/places")
cursor = sqlite3.connect(":memory:").cursor()
cursor.execute("SELECT 1")
command = [sys.executable, "-c", "raise SystemExit(3)"]
with tracer.start_as_current_span("python", attributes={"process.executable.name": "python"}) as span:
    span.set_attribute("process.exit.code", subprocess.run(command, check=False).returncode)
provider.shutdown()
