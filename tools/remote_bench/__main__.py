"""`python -m remote_bench` is the command remote_bench."""

from remote_bench.cli.main import main

main()
