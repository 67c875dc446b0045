"""remote_bench, the command. Imports every other room; nobody imports it."""
