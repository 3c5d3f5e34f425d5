"""Decides when an attempt's evidence is complete and which rewards it gets. Deterministic, no IO."""
