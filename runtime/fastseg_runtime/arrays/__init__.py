"""Pictures, numbers and files: what needs numpy and the standard library alone.

Every package may import it; it imports nothing of ours.
"""
