"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

AcceptHostKey = Annotated[
    str | None,
    typer.Option(
        help="SHA256:... of an unknown host key that you compared; adds it to known_hosts."
    ),
]
PasswordFd = Annotated[
    int | None, typer.Option(min=0, help="Read the password from this file descriptor.")
]
Folder = Annotated[
    str | None,
    typer.Option(help="Where the work folder goes on the board. Default: /var/tmp, /tmp or home."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Html = Annotated[Path | None, typer.Option("--report", help="Write a page with plots here.")]
