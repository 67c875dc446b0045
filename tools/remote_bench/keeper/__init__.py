"""The board's end of the connection: standard library alone, Python 3.6 syntax.

The workstation sends these modules over stdin and they run from memory: one process that holds the
work folder, the lock and the agent, and gives all three up when the workstation is gone. For link,
as text; imports no other room, and starts the agent by name.
"""
