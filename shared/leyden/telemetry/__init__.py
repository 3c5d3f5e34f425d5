"""Logs, metrics and health routes of services."""
