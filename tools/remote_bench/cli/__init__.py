"""remote_bench, the command: its options, and what is refused before any board is touched.

Nobody imports it; it may import every other room.
"""
