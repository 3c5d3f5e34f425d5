"""Exports transitions for other tools: whole groups from the log, joined with their text, in the tool's file format."""
