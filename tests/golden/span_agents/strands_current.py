"""Strands under the current conventions, which it follows by opt-in."""

import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"

import strands_agent

print(strands_agent.__doc__)
