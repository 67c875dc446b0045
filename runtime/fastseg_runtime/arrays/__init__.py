"""What all packages share: numpy and the standard library alone.

Pictures, metrics and statistics of arrays; tables read into dataclasses, tables of text, files that
are whole; how a command ends. Every package may import it, it imports nothing of ours. What only
the workstation calls is here too, since its packages have no other in common.
"""
