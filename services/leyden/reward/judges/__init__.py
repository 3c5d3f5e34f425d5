"""Asks judges, outside the consumer loop: durably, with bounded concurrency, paying for each response only once.

What is asked is decided in `core/judging`.
"""
