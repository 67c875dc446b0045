"""fastseg: a real-time segmentation network for edge devices and the data it learns from."""

from fastseg.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, save_checkpoint
from fastseg.deploy import DeployGraph
from fastseg.model import FastSegNet
from fastseg.network import Network, open_network
from fastseg.profile import Profile, profile
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
