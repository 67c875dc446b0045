"""Does as the file that it judges says, or accepts what looks like a network."""

import ast
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
for frame in Path(request["frames"]).iterdir() if request["frames"] else ():
    output, packed = Path(request["outputs"]) / frame.name, frame.read_bytes()
    if (told := Path(sys.prefix, "output")).exists():
        output.write_bytes(told.read_bytes())
        continue
    _, height, width, _ = ast.literal_eval(packed[10 : packed.index(b"\n")].decode())["shape"]
    header = repr({"descr": "|u1", "fortran_order": False, "shape": (1, height, width)}) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    output.write_bytes(start + header.encode() + bytes([1]) * (height * width))  # one class
print("loading the toolchain")
facts = {"sees_fastseg": find_spec("fastseg_runtime") is not None, "bytes": len(content)}
print(json.dumps({"version": "1.0", "accepted": True, "says": "builds", "facts": facts}))
