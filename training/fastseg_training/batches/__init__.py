"""Pictures and batches: variation, soft labels, and loaders here, on a device or of a user's own.

For everything else in the package; imports nothing of it.
"""
