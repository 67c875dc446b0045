"""The contract of a converter: what it is given, where its data come from, its process.

Imports none of the other rooms here.
"""
