"""Where a measurement runs: a host by SSH or this machine, its errors, and the terminal here.

For every room of the workstation; imports none of them.
"""
