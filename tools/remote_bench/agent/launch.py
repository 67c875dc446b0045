"""Starts processes that do not outlive this one: tools, and other modules of this package."""

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any, Dict, List

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be loaded between fork and exec


def plain_environment() -> Dict[str, str]:
    """Return the environment with the C locale, so that tools print plain decimals."""
    return dict(os.environ, LC_ALL="C", LANG="C")


def module_command(module: str) -> List[str]:
    """Return the command that runs a module of this package."""
    return [sys.executable, "-u", "-m", f"{__package__}.{module}"]


def module_environment() -> Dict[str, str]:
    """Return an environment in which this package can be imported by that command."""
    folder = os.path.dirname(os.path.abspath(__file__))
    for _ in (__package__ or "agent").split("."):  # "agent" on a board, else "remote_bench.agent"
        folder = os.path.dirname(folder)
    return dict(plain_environment(), PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE="1")


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent is gone, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the call
        os._exit(1)


def start(command: List[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that the kernel kills when the thread that starts it is gone."""
    parent = os.getpid()
    return subprocess.Popen(
        command,
        env=options.pop("env", plain_environment()),
        stdin=options.pop("stdin", subprocess.DEVNULL),
        preexec_fn=lambda: die_with_parent(parent),
        **options,
    )


def lead_group() -> bool:
    """Make this process the leader of a process group of its own; say whether it is."""
    try:
        os.setpgid(0, 0)
    except OSError:  # a session's leader is its group's leader already
        return os.getpgrp() == os.getpid()
    return True
