"""Vendors' toolchains that judge an artifact without its device, each in an environment of its own.

`referee` has the records and the contract of a script, `install` makes environments (`make
referees` alone calls it), `judge` runs a script. A `judge_<referee>.py` is such a script: the
referee's own Python runs it, fastseg is not there; `judge_<referee>.txt` beside it pins its wheels.
"""
