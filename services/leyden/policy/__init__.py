"""The policy service: an agent that loads promoted weights into its engine, and the launcher of engines."""
