"""L4T releases and the JetPack each belongs to.

/etc/nv_tegra_release holds no JetPack number, so there is a table. It follows NVIDIA's release
notes; the last of each line is checked against jetson_stats' NVIDIA_JETPACK.
"""

import re
from typing import Any, Dict, Optional

from .board import Board

JETPACK_BY_L4T = {
    "28.1": "3.1", "28.2": "3.2", "28.2.1": "3.3", "28.3.2": "3.3.2", "28.4": "3.3.3",
    "32.1": "4.2", "32.2": "4.2.1", "32.2.1": "4.2.2", "32.3.1": "4.3", "32.4.2": "4.4-DP",
    "32.4.3": "4.4", "32.4.4": "4.4.1", "32.5": "4.5", "32.5.1": "4.5.1", "32.5.2": "4.5.1",
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4",
    "32.7.5": "4.6.5", "32.7.6": "4.6.6",
    "34.1": "5.0-DP", "34.1.1": "5.0.1-DP", "35.1": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1",
    "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5",
    "35.6.2": "5.1.5", "35.6.4": "5.1.6",
    "36.2": "6.0-DP", "36.3": "6.0", "36.4": "6.1", "36.4.2": "6.1", "36.4.3": "6.2",
    "36.4.4": "6.2.1", "36.5.0": "6.2.2",
    "38.2": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip

_RELEASE = re.compile(r"R([0-9]+) \(release\), REVISION: ([0-9.]+)")
_PACKAGE = re.compile(r"([0-9]+\.[0-9]+(?:\.[0-9]+)?)")


def read_l4t(board: Board) -> Optional[Dict[str, Any]]:
    """Return {"l4t", "jetpack", "source"}; None on a board that is no Jetson."""
    found = _RELEASE.search(board.text("/etc/nv_tegra_release") or "")
    if found:
        l4t, source = f"{found.group(1)}.{found.group(2)}", "/etc/nv_tegra_release"
    else:
        outcome = board.run(["dpkg-query", "--show", "nvidia-l4t-core"])
        package = _PACKAGE.search(outcome.output.partition("\t")[2])
        if outcome.status != 0 or not package:
            return None
        l4t, source = package.group(1), "package nvidia-l4t-core"
    return {"l4t": l4t, "jetpack": jetpack_of(l4t), "source": source}


def jetpack_of(l4t: str) -> Optional[str]:
    """Return the JetPack of an L4T release; None where the table has none."""
    without_zeros = re.sub(r"(\.0)+$", "", l4t)
    return JETPACK_BY_L4T.get(l4t) or JETPACK_BY_L4T.get(without_zeros)
