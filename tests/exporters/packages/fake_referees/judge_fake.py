"""Does as the file that it judges says, or accepts what looks like a network."""

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

request = json.load(sys.stdin)
content = (Path(request["folder"]) / request["entry"]).read_bytes()
Path("litter").write_text("toolchains leave files where they are started")
if content == b"crash":
    os.abort()
if content == b"raise":
    raise RuntimeError("no such operator")
if content == b"hang":
    time.sleep(60)
if content == b"say nothing":
    sys.exit(0)
if content.startswith(b"say "):
    print(content[4:].decode())
    sys.exit(0)
if request["frames"] is not None:  # gives the same back, which the test makes a class map
    for frame in Path(request["frames"]).iterdir():
        (Path(request["outputs"]) / frame.name).write_bytes(frame.read_bytes())
print("loading the toolchain")
facts = {"sees_fastseg": find_spec("fastseg_runtime") is not None, "bytes": len(content)}
print(json.dumps({"version": "1.0", "accepted": True, "says": "builds", "facts": facts}))
