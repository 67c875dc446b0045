"""fastseg_training: train, evaluate, distil and prune segmentation networks."""

from fastseg_training.distill import DistillationLoss
from fastseg_training.losses import CrossEntropyLoss, DiceLoss, FocalLoss, OHEMLoss
from fastseg_training.recipe import Recipe
from fastseg_training.trainer import SegmentationTrainer

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "DistillationLoss",
    "FocalLoss",
    "OHEMLoss",
    "Recipe",
    "SegmentationTrainer",
]
