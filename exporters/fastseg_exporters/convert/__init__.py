"""The contract of a converter, what a user names for it, and the process that it runs in.

A Recipe says what is the same for every artifact, a Conversion which artifact, and an exporter is
given a Request: a conversion whose network is open. For all that make or judge artifacts. Imports
none of the other rooms here; exporter.py names the formats, as entry points of others do theirs.
"""
