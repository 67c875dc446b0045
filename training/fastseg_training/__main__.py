"""python -m fastseg_training: the same as fastseg-train."""

from fastseg_training.cli import main

if __name__ == "__main__":
    main()
