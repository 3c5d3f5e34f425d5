"""Decisions of the gateway: binding, routing, requests to engines, replies, records, ends of attempts. No IO."""
