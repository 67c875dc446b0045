"""fastseg: a real-time segmentation network for edge devices and the data it learns from.

In here: FastSegNet (fastsegnet, blocks, variants, backbones/) and what it costs (cost); files of
weights (checkpoint, pretrained, imagenet_weights); any network, ours or not, with how it takes
pictures and gives logits (network, normalization, outputs, own_code); the graph that is exported
(deploy, fold); data sets (data/); what commands ask and show alike (command_options, progress).
Training, exporters and tools may import all of it, users the
names below. It imports the runtime's records and torch; data/ does without torch.
"""

from fastseg.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, save_checkpoint
from fastseg.cost import Profile, profile
from fastseg.deploy import DeployGraph
from fastseg.fastsegnet import FastSegNet
from fastseg.network import Network, open_network
from fastseg.variants import VARIANTS

__version__ = "0.1.0"

__all__ = [
    "VARIANTS",
    "CheckpointError",
    "CheckpointInfo",
    "DeployGraph",
    "FastSegNet",
    "Network",
    "Profile",
    "load_checkpoint",
    "open_network",
    "profile",
    "save_checkpoint",
]
