"""Replays recorded topics through today's reward, credit and trainer, under a topic prefix of its own."""
