"""The part of remote_bench that runs on the board: standard library alone, Python 3.6 syntax.

It is sent to the board as `remote_bench/agent/`, with messages.py beside that, and started there
as `python3 -m remote_bench.agent probe` or `run`; nothing is installed. The workstation imports it
for its tests only.
"""

VERSION = 1  # of the request, of the events and of result.json
