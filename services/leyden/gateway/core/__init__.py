"""What the gateway decides: binding, routing, what is sent and shown, what was sampled, how attempts end. No IO."""
