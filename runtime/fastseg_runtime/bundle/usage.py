"""What weights may be used for, as far as it is known, and how that passes on to what is made."""

from typing import Iterable, Optional

COMMERCIAL, NOT_STATED, RESEARCH = "commercial", "", "research"
USAGES = (COMMERCIAL, NOT_STATED, RESEARCH)  # the strictest last
_WORDS = {
    COMMERCIAL: "commercial use allowed",
    NOT_STATED: "use not stated",
    RESEARCH: "research use only",
}


class UsageRefusedError(ValueError):
    """The weights are not known to be free for the use that was asked for."""


def strictest(usages: Iterable[str]) -> str:
    """Return the usage of what is made from weights and data of these; NOT_STATED from nothing."""
    return max(usages, key=USAGES.index, default=NOT_STATED)


def describe_usage(usage: str) -> str:
    """Return a usage in words."""
    return _WORDS[usage]


def require_usage(wanted: Optional[str], usage: str, name: str) -> None:
    """Return normally if weights may be used as wanted; None wants nothing.

    Raises:
        UsageRefusedError: they may not, or nobody says so.
    """
    if wanted == COMMERCIAL and usage != COMMERCIAL:
        raise UsageRefusedError(
            f"{name}: {describe_usage(usage)}, --require-usage {wanted} was given; take weights "
            "trained on data that allow it and from a start that does (docs/models.md)"
        )
