"""Our small OpenAI-compatible engine on transformers, for machines where vLLM cannot be installed, and for tests.

It serves chat and text completions on one device with continuous batching. It has no paging, no prefix cache and no
constrained output (`response_format`, a required tool); requests with such options get 400. Logprobs are those of the
distribution that was sampled from (see `leyden.engine_face`).
"""
