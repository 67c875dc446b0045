"""One measurement from connecting to cleaning up. Imports host, link and analysis."""
