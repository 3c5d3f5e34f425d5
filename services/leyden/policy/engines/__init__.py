"""Engines with one HTTP API: vLLM with our middleware, or our small engine on transformers.

Start one with `python -m leyden.policy.engines`. Only `transformers_engine` imports torch.
"""
