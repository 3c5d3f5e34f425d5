"""The whole of Leyden on one machine: Kafka, Redis, a policy server and the services, each a process of its own.

Starts processes and watches them; holds no logic of any service and imports none.
"""
