"""The OpenAI Agents SDK under Logfire's instrumentation."""

import logfire
from _agents_sdk import run

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_openai_agents()
run()
logfire.shutdown()
