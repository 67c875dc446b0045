"""Which labels to look at again, and which pictures to label next: ranking, report and sheet.

For cli; imports no other room.
"""
