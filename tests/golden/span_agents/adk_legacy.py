"""google-adk under its earlier schema, in which the content is under names of its own."""

import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = ""
os.environ["ADK_TELEMETRY_SCHEMA_VERSION_OPT_IN"] = "1"
os.environ["ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS"] = "true"

import adk_agent

print(adk_agent.__doc__)
