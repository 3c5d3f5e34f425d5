"""Handlers of the gateway: load, decide in the core, save, publish. No HTTP and no Redis commands."""
