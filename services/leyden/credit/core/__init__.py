"""Decisions of credit: pure, synchronous, deterministic. No IO, clock, randomness or logging."""
