"""What makes an artifact earn its place: reference, workshop, ladder, verification, record.

For `export`, `cli` and `tables`; a format takes `record` alone, for files that describe themselves.
Imports convert.
"""
