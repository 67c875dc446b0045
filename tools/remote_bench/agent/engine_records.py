"""The engines that the runtime keeps on this board, by their build records.

fastseg_runtime writes engines/DIGEST.json beside each engine in the folder that FASTSEG_CACHE
names. Which of them a run used, and whether it was built just now, is read off these files.
"""

import json
import os
from typing import Any, Dict

_MOST_BYTES = 1 << 20


def read_records(cache_dir: str) -> Dict[str, Dict[str, Any]]:
    """Return {digest: record}; "used" in a record is when its engine was last stored or loaded."""
    folder = os.path.join(cache_dir, "engines")
    records: Dict[str, Dict[str, Any]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not name.endswith(".json"):
            continue
        try:
            with open(path, "rb") as file:
                record = json.loads(file.read(_MOST_BYTES).decode("utf-8"))
            record["used"] = os.stat(path).st_mtime
        except (OSError, ValueError, TypeError):
            continue
        records[name[: -len(".json")]] = record
    return records


def what_changed(
    before: Dict[str, Dict[str, Any]], after: Dict[str, Dict[str, Any]]
) -> Dict[str, Any]:
    """Return {"built", "engines"}: whether one is new, and the records of those that were used."""
    used = {
        digest: record
        for digest, record in after.items()
        if digest not in before or record["used"] > before[digest]["used"]
    }
    return {
        "built": any(digest not in before for digest in used),
        "engines": [dict(record, digest=digest) for digest, record in sorted(used.items())],
    }
