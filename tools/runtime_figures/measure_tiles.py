"""What tiles find that one shrunken pass does not: mIoU of small things on enlarged pictures.

python tools/runtime_figures/measure_tiles.py BUNDLE camvid:PATH [SPLIT] [EVERY]

The bundle is made with --confidence. Pictures and labels are enlarged 4 times along each side, the
picture bilinearly, and each is run once as a whole and in tiles.
"""

import sys

import cv2
import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import confusion_matrix, iou_per_class

from fastseg.data import open_dataset

SMALL = ("Pole", "SignSymbol", "Pedestrian")
FACTOR = 4
GRIDS = (None, (2, 2), (3, 3))


def main(bundle: str, data: str, split: str = "val", every: str = "4") -> None:
    """Print one line a grid of tiles."""
    dataset = open_dataset(data, split)
    with RealtimeSegmentation(bundle) as session:
        names = [entry.name for entry in session.classes]
        found_KK = {grid: np.zeros((len(names), len(names))) for grid in GRIDS}
        chosen = range(0, len(dataset), int(every))
        for index in chosen:
            sample = dataset[index]
            image_HW3 = cv2.resize(sample.image_HW3, None, fx=FACTOR, fy=FACTOR)
            label_HW = sample.label_HW.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
            for grid, counts_KK in found_KK.items():
                classes_HW = session.infer(image_HW3, tiles=grid)
                counts_KK += confusion_matrix(classes_HW, label_HW, len(names))
        size = f"{session.input.width}x{session.input.height}"
        print(f"{session.manifest.name} at {size}, {len(chosen)} pictures of {split}, percent")
    small = [names.index(name) for name in SMALL]
    for grid, counts_KK in found_KK.items():
        iou_K = 100 * iou_per_class(counts_KK)
        each = ", ".join(f"{name} {iou_K[names.index(name)]:.1f}" for name in SMALL)
        told = "one pass" if grid is None else f"tiles {grid[0]}x{grid[1]}"
        print(f"{told}: mIoU {np.nanmean(iou_K):.1f}, small {iou_K[small].mean():.1f} ({each})")


if __name__ == "__main__":
    main(*sys.argv[1:])
