"""An adb with one phone behind it: a folder, in which pushed files run on this machine.

FAKE_PHONE names the folder; `serial` there is the phone's, `state` what get-state says of it, `bin`
has Android's own commands. Every call is noted in `calls`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PLACE = "/data/local/tmp"


def main(arguments: list[str]) -> int:
    phone = Path(os.environ["FAKE_PHONE"])
    with (phone / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    flag, serial, command, *rest = arguments
    state = (phone / "state").read_text().strip()
    if flag != "-s" or serial != (phone / "serial").read_text().strip():
        print(f"error: device '{serial}' not found", file=sys.stderr)
        return 1
    if state != "device":
        print(f"error: device {state}.", file=sys.stderr)
        return 1
    if command == "get-state":
        print(state)
        return 0
    if command == "push":
        return push(Path(rest[0]), phone / rest[1].removeprefix("/"))
    line = " ".join(rest).replace(PLACE, str(phone / PLACE.removeprefix("/")))
    path = f"{phone / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(["/bin/sh", "-c", line], env={**os.environ, "PATH": path}).returncode


def push(source: Path, there: Path) -> int:
    if not there.parent.is_dir():
        print(f"adb: error: failed to copy to '{there}': No such file or directory")
        return 1
    copy = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, there)
    there.chmod(0o700 if source.is_dir() else 0o644)  # as adb does: the tool needs its chmod
    print("1 file pushed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
