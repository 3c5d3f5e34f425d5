"""Reward functions run here: in worker processes with limits, or in the service itself where that was chosen.

A guard against accidents (endless loops, memory, crashes), not against hostile code: a worker has the service's user,
files and network.
"""
