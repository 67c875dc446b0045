"""What a bundle and a model file hold: manifest, reader, writer, checks of what came from outside.

For all packages; imports arrays.
"""
