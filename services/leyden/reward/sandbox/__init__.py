"""Runs reward functions: in worker processes with limits, or within the service if `isolated: false`.

This protects against accidents (endless loops, memory use, crashes), not against hostile code: a worker has the
service's user, files and network.
"""
