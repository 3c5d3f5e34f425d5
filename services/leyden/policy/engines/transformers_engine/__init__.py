"""Our small OpenAI-compatible engine on transformers: for machines where vLLM cannot be installed, and for tests.

Chat completions only, one device, batches that requests join and leave between steps. No paging, no prefix cache.
Its logprobs are those of the raw logits, before temperature and truncation, as vLLM's are by default.
"""
