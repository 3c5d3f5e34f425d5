"""Replay: recorded topics through today's reward, credit and trainer, beside the live ones and untouched by them."""
