"""Pictures, metrics, statistics, tables, text and files: numpy and the standard library alone.

Every package may import it; it imports nothing of ours. What only the workstation calls, such as
tables of text for a terminal, is here because the packages that share it have no other in common.
"""
