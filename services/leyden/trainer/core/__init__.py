"""The trainer's decisions: batching, packing, objective. Pure: no IO, no clock, no logging."""
