"""Asking judges: beside the consumer loop, durable, bounded, and paid for once. What is asked is in `core/judging`."""
