"""What a training ends with: a number for each class, added to its logits by the classifier's bias.

It costs nothing where the network runs. Two such shifts are known here. One takes class weights out
again (see losses.py). The other asks what scores best: the likeliest class is the best guess of a
pixel, but a thin or blurred class is hardly ever the likeliest, and its IoU gains where it is said
at less than even odds (Nowozin, "Optimal decisions from probabilistic models: the
intersection-over-union case", CVPR 2014). At which, training pictures tell.

Shape letters: K classes, P labelled pixels, N batch, H and W pixels.
"""

import copy
from collections.abc import Iterable

import torch
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor, nn

from fastseg import FastSegNet
from fastseg_training.distill import resized
from fastseg_training.evaluate import predict_chances

SHIFTS = torch.arange(-20, 21) / 10  # that are tried, of logits: odds from 1/7 to 7 times as high
SWEEPS = 4  # over all classes; the second already changes little
MOST_PICTURES = 160  # evenly spread over the training split
MOST_NUMBERS = 1 << 24  # of float logits that are kept, 64 MiB
LEAST_PIXELS = 100  # that are labelled as a class; of fewer its IoU says nothing
SEED = 0  # of the pixels that are looked at


def without_class_weights(model: nn.Module, weight_K: Tensor) -> FastSegNet:
    """Return a copy of FastSegNet whose main logits are less by log w; weight_K is w, (K,).

    Raises:
        TypeError: it is another network, whose classifier is not known.
    """
    return shifted(model, -weight_K.log())


def adjusted(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> FastSegNet:
    """Return a copy of FastSegNet whose class map scores best on labelled pictures.

    Args:
        model: a trained FastSegNet.
        batches: normalised images (N, 3, H, W) and class ids (N, H', W'), of pictures that it was
            trained on, but as they are: MOST_PICTURES at most.

    Raises:
        TypeError: it is another network, whose classifier is not known.
    """
    generator = torch.Generator().manual_seed(SEED)
    logits, labels = [], []
    for image_N3HW, label_NHW in batches:
        logits_NKHW = resized(predict_chances(model, image_N3HW).cpu(), label_NHW.shape[1:])
        judged_P = label_NHW.flatten() != IGNORE_INDEX
        logits_PK = logits_NKHW.movedim(1, -1).flatten(0, 2)[judged_P]
        most = MOST_NUMBERS // (MOST_PICTURES * logits_PK.shape[1])
        picked = torch.randperm(len(logits_PK), generator=generator)[:most]
        logits.append(logits_PK[picked])
        labels.append(label_NHW.flatten()[judged_P][picked].long())
    return shifted(model, best_shifts(torch.cat(logits), torch.cat(labels)))


def best_shifts(logits_PK: Tensor, label_P: Tensor) -> Tensor:
    """Return the shift of each class, (K,), with which the largest logits score the highest mIoU.

    One class after the other takes the best of SHIFTS, the others held, until none changes. It
    never scores less than no shift at all on these pixels. A class with fewer than LEAST_PIXELS
    is left as it is: never to say it would look best where it is hardly there to be missed.
    """
    shift_K = torch.zeros(logits_PK.shape[1])
    pixels_K = torch.bincount(label_P, minlength=len(shift_K))
    known = (pixels_K >= LEAST_PIXELS).nonzero().flatten().tolist()
    for _ in range(SWEEPS):
        before_K = shift_K.clone()
        for k in known:
            shift_K[k] = _best_shift(logits_PK + shift_K, k, label_P, float(shift_K[k]))
        if torch.equal(before_K, shift_K):
            break
    return shift_K


def _best_shift(logits_PK: Tensor, k: int, label_P: Tensor, now: float) -> float:
    """Return the best of SHIFTS for class k, whose logits have `now` in them; a tie stays."""
    own_P = logits_PK[:, k] - now
    others_PK = logits_PK.clone()
    others_PK[:, k] = -torch.inf
    rival_P, rival_id_P = others_PK.max(1)
    best, best_miou = now, -1.0
    for shift in sorted(SHIFTS.tolist(), key=lambda shift: abs(shift - now)):
        id_P = torch.where(own_P + shift > rival_P, k, rival_id_P)
        miou = _mean_iou(id_P, label_P, logits_PK.shape[1])
        if miou > best_miou:
            best, best_miou = shift, miou
    return best


def _mean_iou(id_P: Tensor, label_P: Tensor, classes: int) -> float:
    """Return the mean IoU of the classes that are labelled."""
    both_KK = torch.bincount(label_P * classes + id_P, minlength=classes**2).view(classes, classes)
    said_K, true_K, right_K = both_KK.sum(0), both_KK.sum(1), both_KK.diagonal()
    iou_K = right_K / (said_K + true_K - right_K).clamp(min=1)
    return float(iou_K[true_K > 0].mean())


def shifted(model: nn.Module, shift_K: Tensor) -> FastSegNet:
    """Return a copy of FastSegNet with these shifts, less their mean, in its classifier's bias.

    Raises:
        TypeError: it is another network, whose classifier is not known.
    """
    if not isinstance(model, FastSegNet):
        raise TypeError(
            f"expected FastSegNet, got {type(model).__name__}: where is its classifier?"
        )
    other = copy.deepcopy(model)
    classifier = other.head[-1]
    assert isinstance(classifier, nn.Conv2d) and classifier.bias is not None
    with torch.no_grad():
        classifier.bias += (shift_K - shift_K.mean()).to(classifier.bias.device)
    return other
