"""fastseg-run as a person starts it, in this process."""

import pytest
from fastseg_runtime.cli.main import main


def run(*arguments: object) -> int:
    """The exit code of fastseg-run."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)
