"""When an attempt's evidence is complete, and which rewards it gives: pure, deterministic."""
