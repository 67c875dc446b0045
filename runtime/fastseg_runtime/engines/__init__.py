"""The engines: one record and one backend each, which to open first, and the self-test.

For the rooms after it and the workstation's packages; imports arrays and bundle. `tensorrt/` is the
one engine that is built on the device, and is private to this room.
"""
