"""Bridges from frameworks that trace in a way of their own. Each is loaded only when it is asked for."""
