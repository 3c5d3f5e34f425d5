"""Runs reward functions: in worker processes with limits, or within the service if `isolated: false`.

A worker leaves no processes, writes only in its folder and reads neither the service's environment nor its memory; it
has the service's user and network, and reads its files. docs/rewards.md says what is enforced where.
"""
