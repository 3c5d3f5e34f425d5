"""Transitions as tuples for other tools: whole groups from the log, joined with text, in a file of their format."""
