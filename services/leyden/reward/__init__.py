"""reward: declares an attempt's evidence complete, judges it by rules, and says that its rewards are complete."""
