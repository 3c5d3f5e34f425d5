"""One rollout, told from the log: what was recorded, what it earned, what of it is trained, and why the rest is not."""
