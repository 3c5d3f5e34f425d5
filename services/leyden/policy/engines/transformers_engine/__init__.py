"""Our small OpenAI-compatible engine on transformers: for machines where vLLM cannot be installed, and for tests.

Chat and text completions, one device, batches that requests join and leave between steps. No paging, no prefix cache,
no forced forms (`response_format`, a required tool): what it would ignore it refuses.
Its logprobs are those of the raw logits, before temperature and truncation, as vLLM's are by default.
"""
