"""Engines behind one HTTP face: vLLM with our middleware, or our small engine on transformers.

Start one with ``python -m leyden.policy.engines``. Nothing here imports torch, except ``transformers_engine``.
"""
