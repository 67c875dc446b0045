"""fastseg_training: train, evaluate, distil and prune segmentation networks.

In here, each importing only what stands before it: pictures and batches (batches/); what may be
configured (losses, distill, optimisation, config); who watches and who helps (progress,
distributed); a network and its scores (precision, supervision, evaluate, pictures); the loop
(run_folder, run_page, callbacks, selection, logit_shift, learner, trainer); a teacher (class_map,
teacher, lessons); all of it put together (prune, build_network, training_data, header,
build_trainer); labels to look at again (suspects/); the command (which_run, cli). Users import the
names below, tools whatever they measure. It imports fastseg and the runtime.
"""

from fastseg_training.callbacks import Callback
from fastseg_training.distill import DistillationLoss
from fastseg_training.losses import CrossEntropyLoss, DiceLoss, FocalLoss, OHEMLoss
from fastseg_training.optimisation import Recipe
from fastseg_training.run_folder import RunFolder
from fastseg_training.selection import Selection
from fastseg_training.trainer import SegmentationTrainer

__all__ = [
    "Callback",
    "CrossEntropyLoss",
    "DiceLoss",
    "DistillationLoss",
    "FocalLoss",
    "OHEMLoss",
    "Recipe",
    "RunFolder",
    "SegmentationTrainer",
    "Selection",
]
