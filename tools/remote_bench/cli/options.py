"""What several commands take: how to log in, and options of the board."""

from dataclasses import dataclass
from typing import Annotated

import typer

from remote_bench.host.connect import Connector

FolderOption = Annotated[
    str | None,
    typer.Option(help="Where the work folder goes on the board. Default: /var/tmp, /tmp or home."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.toml|NAME",
        help="The board's record. Default: recognised, yours in ~/.config/fastseg/boards first.",
    ),
]
AcceptHostKeyOption = Annotated[
    str | None,
    typer.Option(
        help="SHA256:... of an unknown host key that you compared; adds it to known_hosts."
    ),
]
PasswordFdOption = Annotated[
    int | None, typer.Option(min=0, help="Read the board's password from this file descriptor.")
]
PassphraseFdOption = Annotated[
    int | None,
    typer.Option(min=0, help="The same for the passphrase of a key here; no board sees it."),
]
ViaSshOption = Annotated[
    bool,
    typer.Option(
        "--via-ssh",
        help="By your own ssh: certificates, hardware keys, GSSAPI, whatever it can.",
    ),
]
AllowBusyOption = Annotated[
    bool, typer.Option("--allow-busy", help="Measure though others use the board, and say so.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to log in: of every command that measures."""

    accept_host_key: AcceptHostKeyOption = None
    password_fd: PasswordFdOption = None
    passphrase_fd: PassphraseFdOption = None
    via_ssh: ViaSshOption = False

    def connector(self) -> Connector:
        """Return what connects so."""
        return Connector(self.accept_host_key, self.password_fd, self.passphrase_fd, self.via_ssh)
