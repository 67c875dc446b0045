"""What a name of frames means; `fastseg-run --help` has the names."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

CAMERA, STDIN = "camera:", "-"
_NETWORK = re.compile(r"(rtsps?|https?|rtmps?|srt|udp|tcp)://", re.IGNORECASE)
_FPS = r"(?:@(\d{1,3}(?:\.\d{1,3})?))?"
_WISHES = r"(?::(\d{1,5})x(\d{1,5}))?" + _FPS
_CAMERA = re.compile(r"(camera:\d{1,3}|/dev/video\d{1,3})" + _WISHES)
_SEQUENCE = re.compile(r"([^%]*%0?\d?d[^%@]*)" + _FPS)
# user:password, which may hold an @ itself and, but behind a port, a slash; and ?password=...
_SECRET = re.compile(r"(?<=://)(?:[^/\s]*@|[^/\s@:]*:(?!\d+/)\S*@)")
_SECRET_VALUE = re.compile(
    r"((?:pa?s\w*|pw\w*|token|key|secret|auth|sig|signature)=)[^&\s]*", re.IGNORECASE
)  # pass, psw, pwd, loginpas, GStreamer's user-pw ...


@dataclass(frozen=True)
class SourceName:
    """A source as it was named."""

    kind: str  # "camera", "network", "pipeline", "sequence", "stdin" or "file"
    place: str  # what is opened: "camera:0", a URL, a path
    size: Optional[Tuple[int, int]] = None  # width, height that a camera is asked for
    fps: Optional[float] = None  # of a camera or of pictures

    @property
    def is_live(self) -> bool:
        """Return whether frames come when they come; of http that shows when it is opened."""
        return self.kind in ("camera", "network", "pipeline")

    @property
    def shown(self) -> str:
        """Return the place without the passwords that a URL may hold."""
        return _SECRET_VALUE.sub(r"\1...", _SECRET.sub("", self.place))

    @property
    def stem(self) -> str:
        """Return what a result may be called."""
        text = "stdin" if self.kind == "stdin" else self.shown.replace(":", "", 1)
        return re.sub(r"[^\w.]+", "-", text).strip("-.")[:80] or self.kind


def parse_source(name: str) -> SourceName:
    """Return what a name means; what is there, or looks like nothing else, is a file."""
    if name == STDIN:
        return SourceName("stdin", name)
    if _NETWORK.match(name):
        return SourceName("network", name)
    camera, sequence = _CAMERA.fullmatch(name), _SEQUENCE.fullmatch(name)
    if camera:
        place, width, height, fps = camera.groups()
        size = (int(width), int(height)) if width else None
        return SourceName("camera", place, size, float(fps) if fps else None)
    if os.path.lexists(name):  # whoever names a file must not make a pipeline run by that
        return SourceName("file", name)
    if " ! " in name:
        return SourceName("pipeline", name)
    if name.startswith(CAMERA):
        return SourceName("camera", name)  # which does not open, and says how it is written
    if sequence:
        fps = sequence.group(2)
        return SourceName("sequence", sequence.group(1), fps=float(fps) if fps else None)
    return SourceName("file", name)


def numbered_pictures(pattern: str) -> List[Path]:
    """Return the files of a pattern such as frames/%06d.png, by number."""
    if "%" not in Path(pattern).name:  # but in a folder's
        return []
    before, number, after = re.split(r"(%0?\d?d)", Path(pattern).name, maxsplit=1)
    width = number[2:-1] if number[1] == "0" else ""
    digits = rf"\d{{{width},}}" if width else r"\d+"
    fits = re.compile(re.escape(before) + f"({digits})" + re.escape(after))
    folder = Path(pattern).parent
    found = (
        [(fits.fullmatch(file.name), file) for file in folder.iterdir()] if folder.is_dir() else []
    )
    return [
        file for _, file in sorted((int(match.group(1)), file) for match, file in found if match)
    ]
