"""The engines: a record and a backend each, which to open first, and the self-test.

For the rooms after it and the workstation's packages; imports arrays and bundle. `engine` holds
what is known without importing an engine, and imports no numpy. `tensorrt/` is the engine that is
built on the device; others use its cache (fastseg-run) and its builder (exporters).
"""
