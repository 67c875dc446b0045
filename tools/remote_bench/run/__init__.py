"""One measurement from connecting to cleaning up; several boards at once, detached, in a sweep.

For report and cli; imports host, link and analysis, and the exporters where it makes a bundle.
"""
