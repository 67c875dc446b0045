"""What weights trained on a data set may be used for, by the kind of the data."""

from fastseg_runtime.bundle.usage import COMMERCIAL, NOT_STATED, RESEARCH

# Neither licence grants commercial use: CamVid's authors name none, Cityscapes' excludes it.
_RESEARCH = ("camvid", "cityscapes")


def usage_of_data(kind: str) -> str:
    """Return the usage of weights trained on "camvid", "synthetic", ...; a user's data say none."""
    if kind in _RESEARCH:
        return RESEARCH
    return COMMERCIAL if kind.partition("-")[0] == "synthetic" else NOT_STATED
