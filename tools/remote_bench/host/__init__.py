"""Where a measurement runs: a host by SSH or this machine, its errors, and the terminal here.

Imports none of the other rooms.
"""
