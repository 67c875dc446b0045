"""python -m compare_models."""

from compare_models.cli import main

main()
