"""Take class weights out of a trained network again.

Weights w in the cross entropy help rare classes to be learnt, but the network says them too often
then: softmax(z) tends to w * p instead of p. z - log w tends to p (Menon et al. 2021, "post-hoc
logit adjustment", arXiv:2007.07314), and costs nothing where it is in the classifier's bias.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fastseg import FastSegNet


def without_class_weights(model: nn.Module, weight_K: Tensor) -> FastSegNet:
    """Return a copy of a network whose main logits are less by log w.

    Args:
        model: FastSegNet, trained with weighted cross entropy.
        weight_K: w, the weights, (K,).

    Raises:
        TypeError: it is another network, whose classifier is not known.
    """
    if not isinstance(model, FastSegNet):
        raise TypeError(
            f"expected FastSegNet, got {type(model).__name__}: where is its classifier?"
        )
    shift_K = weight_K.log()
    unweighted = copy.deepcopy(model)
    classifier = unweighted.head[-1]
    assert isinstance(classifier, nn.Conv2d) and classifier.bias is not None
    with torch.no_grad():
        classifier.bias -= shift_K - shift_K.mean()
    return unweighted
