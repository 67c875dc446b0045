"""Batches made on the accelerator: the data set lives in its memory, crops are cut there.

Shape letters: N batch, M pictures of the data set, H and W pixels, h and w pixels of a crop.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor

from fastseg.data import Array
from fastseg.normalization import CENTRED, Normalization
from fastseg_training.batches.augment import MID_GREY, Region, Variation
from fastseg_training.batches.loader import Batch, BatchPlan, Drawn, made_ahead
from fastseg_training.batches.soft_labels import CROP_STRIDE, P_OF_CODE_256, label_from_crop

MEMORY_SHARE = 0.5  # of what is free on the device, for the data set
BLUR_REACH = 3.0  # standard deviations


class DeviceBatchLoader:
    """Augments whole batches on a device, where the pictures live; draws what BatchLoader draws.

    The plan's samples have to be resident and of one size.
    """

    def __init__(
        self, plan: BatchPlan, device: torch.device, normalization: Normalization = CENTRED
    ) -> None:
        self.plan, self.normalization = plan, normalization
        samples = [plan.samples[index] for index in range(len(plan.samples))] + [*plan.unlabelled]
        self.image_MHW3 = _upload([sample.image_HW3 for sample in samples], device)
        self.label_MHW = _upload([sample.label_HW for sample in samples], device)
        soft = [plan.soft[index] for index in range(len(plan.soft))]
        self.soft_MhwK = _upload(soft, device) if soft else None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.plan)

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""
        return map(self._cut, made_ahead(self.plan.draw, step, workers=1))

    def _cut(self, drawn: list[Drawn]) -> Batch:
        image_N3hw, label_Nhw, soft_NKhw = self._crops(drawn)
        places = [number for number, place in enumerate(drawn) if place.pasted is not None]
        if places:
            others = [place.pasted for place in drawn if place.pasted is not None]
            other_P3hw, other_Phw, soft_PKhw = self._crops(others)
            for number, image_3hw, label_hw in zip(places, other_P3hw, other_Phw, strict=True):
                mask_hw = _mask(drawn[number].region, label_hw)
                image_N3hw[number][:, mask_hw] = image_3hw[:, mask_hw]
                label_Nhw[number, mask_hw] = label_hw[mask_hw]
                if soft_NKhw is not None and soft_PKhw is not None:
                    cell_hw = mask_hw[::CROP_STRIDE, ::CROP_STRIDE]
                    soft_Khw = soft_PKhw[places.index(number)]
                    soft_NKhw[number][:, cell_hw] = soft_Khw[:, cell_hw]
        image_N3hw = self.normalization.normalise(image_N3hw.permute(0, 2, 3, 1))
        image_N3hw = image_N3hw.contiguous(memory_format=torch.channels_last)
        return Batch(image_N3hw, label_Nhw, tuple(place.source for place in drawn), soft_NKhw)

    def _crops(self, drawn: list[Drawn]) -> tuple[Tensor, Tensor, Tensor | None]:
        indices = torch.tensor([place.index for place in drawn], device=self.image_MHW3.device)
        image_NHW3, label_NHW = self.image_MHW3[indices], self.label_MHW[indices]
        variations = [place.variation for place in drawn]
        image_N3hw, label_Nhw = vary_batch(image_NHW3, label_NHW, variations, self.plan.crop)
        if self.soft_MhwK is None:
            return image_N3hw, label_Nhw, None
        code_NhwK, size = self.soft_MhwK[indices], label_NHW.shape[:0:-1]
        soft_NKhw = vary_soft_batch(code_NhwK, variations, (size[0], size[1]), self.plan.crop)
        return image_N3hw, label_Nhw, soft_NKhw


def _mask(region: Region, label_hw: Tensor) -> Tensor:
    """Return which pixels of a crop are pasted, as Region.mask() does."""
    if region.box is None:
        return torch.isin(label_hw, torch.tensor(region.classes, device=label_hw.device))
    left, top, right, bottom = region.box
    mask_hw = torch.zeros_like(label_hw, dtype=torch.bool)
    mask_hw[top:bottom, left:right] = True
    return mask_hw


def fits_on_device(plan: BatchPlan, device: torch.device) -> bool:
    """Return whether samples and soft labels have one size each and leave room to train.

    Of other devices than NVIDIA's and AMD's nobody here asks how much memory is free.
    """
    if device.type != "cuda" or not isinstance(plan.samples, list):
        return False
    samples = [*plan.samples, *plan.unlabelled]
    first_HW = samples[0].label_HW
    if any(sample.label_HW.shape != first_HW.shape for sample in samples):
        return False
    if plan.soft and not isinstance(plan.soft, list):  # too many for the CPU's memory
        return False
    if len({plan.soft[n].shape for n in range(len(plan.soft))}) > 1:  # small unlabelled pictures
        return False
    bytes_each = first_HW.size * 4 + (plan.soft[0].nbytes if plan.soft else 0)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return bool(len(samples) * bytes_each <= free_bytes * MEMORY_SHARE)


def vary_batch(
    image_NHW3: Tensor,
    label_NHW: Tensor,
    variations: Sequence[Variation],
    crop: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Apply one variation to each picture of a batch, as apply_variation does to one.

    Returns:
        float32 (N, 3, h, w) in bytes' units, unrounded, and int64 class ids (N, h, w).
    """
    device = image_NHW3.device
    maps = [variation.image_from_crop_23 for variation in variations]
    grid_Nhw2 = _sampling_grid(maps, crop, image_NHW3.shape[1:3], device)
    # Offsets, because what lies outside of the picture is sampled as 0.
    centred_N3HW = image_NHW3.permute(0, 3, 1, 2).float() - MID_GREY
    judged_N1HW = label_NHW[:, None].float() - IGNORE_INDEX
    image_N3hw = F.grid_sample(centred_N3HW, grid_Nhw2, align_corners=False) + MID_GREY
    label_N1hw = F.grid_sample(judged_N1HW, grid_Nhw2, mode="nearest", align_corners=False)
    image_N3hw = _blur(image_N3hw, [variation.blur_sigma for variation in variations])
    color_N34 = _to_tensor([variation.color_34 for variation in variations], device)
    image_N3hw = torch.einsum("nij,njhw->nihw", color_N34[..., :3], image_N3hw)
    image_N3hw = (image_N3hw + color_N34[..., 3, None, None]).clamp_(0, 255)
    return image_N3hw, (label_N1hw[:, 0] + IGNORE_INDEX).long()


def vary_soft_batch(
    code_NhwK: Tensor,
    variations: Sequence[Variation],
    size: tuple[int, int],
    crop: tuple[int, int],
) -> Tensor:
    """Return the soft labels of the crops of a batch, as vary_label does that of one.

    Args:
        code_NhwK: uint8 soft labels of the whole pictures.
        variations: of each.
        size: (width, height) of the pictures, pixels.
        crop: (width, height) of the crops, pixels.
    """
    label_hw = code_NhwK.shape[1:3]
    maps = [label_from_crop(variation, label_hw, size) for variation in variations]
    cells = (crop[0] // CROP_STRIDE, crop[1] // CROP_STRIDE)
    grid_Nhw2 = _sampling_grid(maps, cells, label_hw, code_NhwK.device)
    p_256 = torch.from_numpy(P_OF_CODE_256).to(code_NhwK.device)
    p_NKhw = p_256[code_NhwK.long()].permute(0, 3, 1, 2)
    return F.grid_sample(p_NKhw, grid_Nhw2, align_corners=False)


def _sampling_grid(
    maps: Sequence[Array], crop: tuple[int, int], size: torch.Size, device: torch.device
) -> Tensor:
    """Return where each crop pixel lies in its picture, (N, h, w, 2), -1 to 1 edge to edge."""
    width, height = crop
    y_hw, x_hw = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    crop_hw3 = torch.stack([x_hw, y_hw, torch.ones_like(x_hw)], dim=-1).float()
    map_N23 = _to_tensor(maps, device)
    pixel_Nhw2 = torch.einsum("nij,hwj->nhwi", map_N23, crop_hw3)
    size_xy = torch.tensor([size[1], size[0]], device=device)
    return (2 * pixel_Nhw2 + 1) / size_xy - 1


def _blur(image_N3hw: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Blur each picture with a Gaussian of its own, first along rows, then along columns."""
    reach = math.ceil(BLUR_REACH * max(sigmas))
    if not reach:
        return image_N3hw
    offset_k = np.arange(-reach, reach + 1)
    # A tiny sigma is no blur: only the middle of its kernel is not zero.
    kernels = [np.exp(-0.5 * (offset_k / max(sigma, 1e-3)) ** 2) for sigma in sigmas]
    kernel_Nk = _to_tensor([kernel / kernel.sum() for kernel in kernels], image_N3hw.device)
    kernel_Ck = kernel_Nk.repeat_interleave(3, dim=0)
    image_1Chw = image_N3hw.flatten(0, 1)[None]
    channels = len(kernel_Ck)
    padded_1Chw = F.pad(image_1Chw, (reach,) * 4, mode="reflect")
    rows_1Chw = F.conv2d(padded_1Chw, kernel_Ck[:, None, None, :], groups=channels)
    both_1Chw = F.conv2d(rows_1Chw, kernel_Ck[:, None, :, None], groups=channels)
    return both_1Chw.view_as(image_N3hw)


def _to_tensor(arrays: Sequence[Array], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32)).to(device, non_blocking=True)


def _upload(arrays: Sequence[Array], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
