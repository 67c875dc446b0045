"""Class maps as one file in COCO's format (cocodataset.org, Data format).

category_id is class id + 1, since some readers take 0 for the background.
"""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Sequence

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.frames.sources import numbered_pictures, parse_source
from fastseg_runtime.masks import regions


class CocoFile:
    """Collects the regions of pictures; leaving the block writes them, whatever ended it.

    Raises:
        ValueError: the sources share no folder, on Windows.

    Names in the file are relative to the folder that all `sources` share.
    """

    def __init__(self, path: Path, classes: Sequence[ClassInfo], sources: Sequence[str]) -> None:
        self.path = path
        self._images: List[Dict[str, Any]] = []
        self._annotations: List[Dict[str, Any]] = []
        self._pictures: Dict[str, List[Path]] = {}  # of a numbered sequence
        try:
            folders = [os.path.dirname(os.path.abspath(source)) for source in sources]
            self._folder = os.path.commonpath(folders)
        except ValueError as error:
            raise ValueError("--format coco needs all inputs on one drive") from error
        self._categories = [
            {"id": number, "name": entry.name, "supercategory": ""}
            for number, entry in enumerate(classes, start=1)
        ]

    def add(self, source: str, classes_HW: Array, frame: int = 0) -> None:
        """Add ids, uint8 (H, W), of a picture, or of a video's frame, from 1."""
        height, width = classes_HW.shape
        image = {"id": len(self._images) + 1, "width": width, "height": height}
        self._images.append({**image, "file_name": self._name(source, frame)})
        for region in regions(classes_HW, range(len(self._categories))):
            left, top, right, bottom = region.box
            annotation = {
                "id": len(self._annotations) + 1,
                "image_id": image["id"],
                "category_id": region.class_id + 1,
                "segmentation": region.coco_rle,
                "area": region.area_px,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
            }
            self._annotations.append(annotation)

    def _name(self, source: str, frame: int) -> str:
        """Return the name of a picture, or the one that ffmpeg would unpack a frame to."""
        path, named = Path(source), parse_source(source)
        if named.kind == "sequence":  # whose frames are pictures already
            if source not in self._pictures:
                self._pictures[source] = numbered_pictures(named.place)
            path = self._pictures[source][frame - 1]
        elif frame:
            path /= f"{frame:06d}.png"
        return Path(os.path.relpath(path, self._folder)).as_posix()

    def __enter__(self) -> "CocoFile":
        """Return the collection itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the file; without any picture there is none, and an older one stays."""
        if not self._images:
            return
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        write_file(self.path, json.dumps(document, separators=(",", ":")).encode())
