"""Threads: the pool, the barrier, and how work is split."""
