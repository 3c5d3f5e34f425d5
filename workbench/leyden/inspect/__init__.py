"""Report on one rollout from the log: its calls and rewards, what is trained, and why the rest is not."""
