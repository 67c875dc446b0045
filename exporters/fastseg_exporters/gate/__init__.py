"""What judges an artifact: the reference, the comparison, the ladder, the record.

Imports convert alone.
"""
