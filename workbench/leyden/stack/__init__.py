"""Leyden on one machine: starts and supervises Kafka, Redis, a policy server and the services as processes.

Imports no service.
"""
