"""Why the board cannot do what was asked."""

import errno
from typing import Any, Dict


class Refusal(Exception):
    """A kind for programs, a message for people, and details."""

    def __init__(self, kind: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.kind, self.message, self.details = kind, message, details

    def reply(self) -> Dict[str, Any]:
        """Return the fields of a reply."""
        return dict(self.details, ok=False, kind=self.kind, message=self.message)


def of_os_error(error: OSError) -> Refusal:
    """Name what the system said."""
    kinds = {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EROFS: "read_only",
        errno.EACCES: "denied",
        errno.EPERM: "denied",
    }
    place = f"{error.filename!r}: " if error.filename else ""
    return Refusal(kinds.get(error.errno or 0, "system"), f"{place}{error.strerror or error}")
