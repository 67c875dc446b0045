"""The workstation's side of SSH in tests: a config file that `ssh -G` reads instead of ~/.ssh."""

import os
import shutil
from pathlib import Path
from typing import Any

from tests.boards.sshd import Sshd


class SshClient:
    """Puts an ssh that reads our config first in PATH."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.config = folder / "config"
        folder.mkdir()
        self.config.write_text("GlobalKnownHostsFile /dev/null\n")
        wrapper = folder / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.config} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def add(self, alias: str, server: Sshd, port: int | None = None, **options: object) -> str:
        """Describe a server under an alias; return the alias."""
        settings = {
            "HostName": "127.0.0.1",
            "Port": port or server.port,
            "IdentityFile": server.client_key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": server.known_hosts,
            **options,
        }
        lines = [f"Host {alias}", *(f"  {key} {value}" for key, value in settings.items())]
        with self.config.open("a") as file:
            file.write("\n".join(lines) + "\n")
        return alias
