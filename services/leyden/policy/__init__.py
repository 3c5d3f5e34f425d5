"""The policy service: an agent beside the engine that puts promoted weights live, and the engines' launcher."""
