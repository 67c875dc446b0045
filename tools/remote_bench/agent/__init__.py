"""The part of remote_bench that measures on the board: standard library alone, Python 3.6 syntax.

It is sent to the board as `remote_bench/agent/`, with messages.py beside that, and started there
as `python3 -m remote_bench.agent probe` or `run`; nothing is installed. For the keeper, by name;
the workstation imports it for its tests only. Imports no other room.
"""

VERSION = 1  # of the request, of the events and of result.json
