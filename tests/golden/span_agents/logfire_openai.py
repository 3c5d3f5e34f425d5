"""The plain OpenAI client under Logfire's instrumentation."""

import logfire
from _telemetry import converse
from openai import OpenAI

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_openai()
with logfire.span("run {question}", question="population"):
    print(converse(OpenAI()))
    logfire.info("done")
logfire.shutdown()
