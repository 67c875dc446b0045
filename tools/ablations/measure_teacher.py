"""What a teacher knows of a labelled split, and how much of that soft labels of each size keep.

    python tools/ablations/measure_teacher.py --data camvid:PATH --every 8 --teacher fddwnet.onnx \\
        --teacher-map cityscapes-to-camvid --teacher-size 960x720 --teacher-normalization imagenet

One line a grid: the part of the picture's size, mIoU, the IoU of each class, kB a picture.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import confusion_matrix, iou_per_class, mean_iou
from fastseg_training.batches.soft_labels import P_OF_CODE_256, encode, write_label
from fastseg_training.config import TrainConfig
from fastseg_training.teacher import open_teacher

from fastseg.data import Array, open_dataset
from fastseg.progress import show_progress

STRIDES = (1, 2, 4, 8)
TEACHER = ("teacher", "teacher_weights", "teacher_map", "teacher_size", "teacher_normalization")


def ids_of(code_hwK: Array, size: tuple[int, int]) -> Array:
    """Return the class map (height, width) of a soft label, bilinear as in the runtime."""
    p_1Khw = torch.from_numpy(P_OF_CODE_256[code_hwK]).permute(2, 0, 1)[None]
    p_1KHW = F.interpolate(p_1Khw, size=size[::-1], mode="bilinear", align_corners=False)
    return p_1KHW.argmax(1)[0].numpy()


def measure(config: TrainConfig, split: str, every: int) -> None:
    """Print a line for each grid."""
    dataset = open_dataset(config.data, split)
    indices, num_classes = range(0, len(dataset), every), len(dataset.classes)
    height, width = dataset[0].label_HW.shape
    teacher = open_teacher(config, dataset.classes, (width, height))
    assert teacher is not None  # the option is required
    confusion = {stride: np.zeros((num_classes, num_classes), np.int64) for stride in STRIDES}
    stored = dict.fromkeys(STRIDES, 0)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "label.npz"
        for index in show_progress(indices, "labelling", len(indices)):
            sample = dataset[index]
            height, width = sample.label_HW.shape
            fine_hwK = teacher.probabilities(sample.image_HW3, (width, height))
            fine_1Khw = torch.from_numpy(fine_hwK).permute(2, 0, 1)[None]
            for stride in STRIDES:
                grid = (-(-height // stride), -(-width // stride))
                p_1Khw = F.interpolate(fine_1Khw, size=grid, mode="area")
                code_hwK = encode(p_1Khw[0].permute(1, 2, 0).numpy())
                ids_HW = ids_of(code_hwK, (width, height))
                confusion[stride] += confusion_matrix(ids_HW, sample.label_HW, num_classes)
                write_label(file, code_hwK)
                stored[stride] += file.stat().st_size
    print(f"{len(indices)} images of {config.data.partition(':')[0]} {split}")
    for stride in STRIDES:
        iou_K = iou_per_class(confusion[stride])
        ious = " ".join(
            f"{c.name} {iou:.2f}" for c, iou in zip(dataset.classes, iou_K, strict=True)
        )
        size_kb = stored[stride] / len(indices) / 1000
        print(f"1/{stride}: {mean_iou(confusion[stride]):.4f}  {ious}  {size_kb:.0f} kB")


def main(arguments: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="take each n-th image [1]")
    for name in TEACHER:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default="", required=name == "teacher")
    given = parser.parse_args(arguments)
    chosen = {name: getattr(given, name) for name in TEACHER}
    measure(TrainConfig(data=given.data, **chosen), given.split, given.every)


if __name__ == "__main__":
    main(sys.argv[1:])
