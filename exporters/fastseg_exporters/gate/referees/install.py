"""Environments of referees in the user's cache: `make referees` makes them, nothing else does."""

import subprocess
import sys
import venv
from collections.abc import Callable

from fastseg_runtime.arrays.shared_files import is_private

from fastseg_exporters.gate.referees.referee import Referee, RefereeError


def install(referee: Referee, tell: Callable[[str], None]) -> None:
    """Make the environment of a referee, if it is not there, from wheels of known hashes.

    Raises:
        RefereeError: pip could not fetch or install them; the message is pip's last line. Or
            others can write to the folder of environments.
    """
    if referee.is_installed:
        tell(f"{referee.name}: is in {referee.environment}")
        return
    tell(
        f"{referee.name}: {referee.title}, fetching {referee.download_mb} MB, "
        f"{referee.installed_mb} MB on disk; its licence, which using it accepts: {referee.licence}"
    )
    folder = referee.environment
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(folder.parent):
        raise RefereeError(
            f"{referee.name} cannot be installed: others can write to {folder.parent} (remove it, "
            "or chown it to you and chmod 700 it)"
        )
    venv.create(folder, clear=True, symlinks=True)
    folder.chmod(0o700)  # whatever the umask: what others can write to does not count
    pip = [sys.executable, "-m", "pip", "--python", str(referee.python), "install", "--quiet"]
    wheels = ["--require-hashes", "--no-deps", "--only-binary=:all:", "-r"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", *wheels, str(referee.requirements)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise RefereeError(f"{referee.name} cannot be installed: {last}")
    (folder / "ready").touch()
    tell(f"{referee.name}: installed in {folder}")
