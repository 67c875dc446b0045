"""What this user has in the places where we write, so that a report can say what stayed."""

import os
from typing import Dict, List, Set


def take(places: List[str]) -> List[str]:
    """Return the paths directly in some folders that belong to this user, sorted."""
    found: Set[str] = set()
    for place in {os.path.realpath(os.path.expanduser(place)) for place in places}:
        try:
            names = os.listdir(place)
        except OSError:
            continue
        found.update(path for path in (os.path.join(place, n) for n in names) if _is_mine(path))
    return sorted(found)


def _is_mine(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:  # gone meanwhile
        return False


def difference(before: List[str], after: List[str]) -> Dict[str, object]:
    """Return how many paths there were and are, and which came and went."""
    return {
        "before": len(before),
        "after": len(after),
        "appeared": sorted(set(after) - set(before))[:100],
        "disappeared": sorted(set(before) - set(after))[:100],
    }
