"""fastseg-run: the command and its reports.

Nobody imports it; it imports every other room.
"""
