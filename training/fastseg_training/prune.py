"""Structured pruning: whole channels go, so the result is an ordinary, narrower network.

Channels that additions or depthwise convolutions tie together go together (torch-pruning's
dependency graph: Fang et al. 2023, arXiv:2301.12900).
"""

import copy
import sys

import torch

from fastseg import FastSegNet, profile
from fastseg_training.config import ConfigError

WIDTH_MULTIPLE = 8  # the least that fp16 and int8 kernels pad to
STEPS = 40  # from whole to MAX_RATIO; the finest step in which MACs can be met
MAX_RATIO = 0.8  # of the channels of one layer
TOLERANCE = 0.05  # of the MACs, about what one step saves


def prune(model: FastSegNet, share: float, size: tuple[int, int]) -> FastSegNet:
    """Return a copy with the least important channels removed.

    Importance is the L2 norm of a channel's weights over all layers that it is tied to, compared
    between layers of the same shape of tie.

    Args:
        model: a trained network.
        share: of the multiply-adds to save, above 0 and below 0.9.
        size: (width, height) that they are counted at.

    Raises:
        ConfigError: share is out of its range, or torch-pruning is missing.
    """
    if not 0 < share < 0.9:
        raise ConfigError(f"prune is {share}; expected the share of MACs to save, 0 to 0.9")
    try:
        import torch_pruning  # an extra
    except ImportError as error:
        raise ConfigError("--prune needs torch-pruning: pip install -e '.[prune]'") from error
    pruned = copy.deepcopy(model).cpu()
    pruned.eval()
    classifiers = [head[-1] for head in (pruned.head, *pruned.auxiliary_heads)]
    pruner = torch_pruning.pruner.BasePruner(
        pruned,
        torch.zeros(1, 3, 64, 64),
        forward_fn=lambda network, image: network(image, auxiliary=True),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=MAX_RATIO,
        max_pruning_ratio=MAX_RATIO,
        global_pruning=True,
        isomorphic=True,
        ignored_layers=classifiers,
        round_to=WIDTH_MULTIPLE,
        iterative_steps=STEPS,
    )
    whole_macs = profile(model, size).macs
    for _ in range(STEPS):
        if profile(pruned, size).macs <= whole_macs * (1 - share):
            break
        pruner.step()
    _say_what_is_saved(whole_macs, profile(pruned, size).macs, share)
    for parameter in pruned.parameters():
        parameter.grad = None
    pruned.train(model.training)
    return pruned


def _say_what_is_saved(before: int, after: int, share: float) -> None:
    """Say it, loudly where it is not what was asked for."""
    saved = 1 - after / before
    line = f"pruned: {before / 1e6:.0f} M multiply-adds to {after / 1e6:.0f} M, {saved:.1%} saved"
    if abs(saved - share) > TOLERANCE:
        line = (
            f"WARNING: {line}, {share:.1%} asked for: channels go by {WIDTH_MULTIPLE}, and of a "
            f"layer at most {MAX_RATIO:.0%}; ask for another share, or take another network"
        )
    print(line, file=sys.stderr)
