"""`python -m remote_bench` is the command remote_bench."""

from remote_bench.cli import main

main()
