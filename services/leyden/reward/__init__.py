"""The reward service: settles an attempt's evidence, applies reward rules to it, and publishes the rewards."""
