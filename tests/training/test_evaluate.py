import io
import json

import cv2
import numpy as np
import pytest
import torch
from fastseg_runtime.arrays.metrics import confusion_matrix
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_training.evaluate import (
    Evaluation,
    EvaluationBatches,
    boundary_band,
    evaluate,
    full_size_logits,
    predict,
)
from fastseg_training.pictures import draw_confusion
from torch import Tensor, nn

from fastseg import CheckpointError
from fastseg.data import Sample


class Threshold(nn.Module):
    """Class 1 where the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image_N3HW: Tensor) -> Tensor:
        bright_N1HW = image_N3HW.mean(1, keepdim=True) * self.scale
        return torch.cat([-bright_N1HW, bright_N1HW], 1)


@pytest.mark.parametrize(("ids", "wrong"), [([-1, 3, 10], -1), ([0, 3, 11], 11)])
def test_the_id_that_no_class_has_is_the_one_that_is_named(ids: list[int], wrong: int) -> None:
    ids_N = np.array(ids)
    with pytest.raises(ValueError, match=f"label holds class id {wrong}; expected 0 to 10"):
        confusion_matrix(np.zeros_like(ids_N), ids_N, 11)


def test_iou_comes_from_one_confusion_matrix_over_all_images() -> None:
    truth = torch.tensor([[[0, 0, 1, 255]], [[1, 1, 1, 1]]])
    bright = torch.tensor([[[-1.0, 1, 1, 1]], [[1, 1, -1, 1]]])
    pairs = [(bright[i : i + 1, None].repeat(1, 3, 1, 1), truth[i : i + 1]) for i in range(2)]
    evaluation = evaluate(Threshold(), pairs, 2)
    assert evaluation.confusion_KK.tolist() == [[1, 1], [1, 4]]
    scores = evaluation.scores((ClassInfo("dark", (0, 0, 0)), ClassInfo("bright", (9, 9, 9))))
    assert scores["iou"] == pytest.approx({"dark": 1 / 3, "bright": 4 / 6})
    assert scores["miou"] == pytest.approx(0.5)
    assert scores["images"] == 2
    assert scores["pixel_accuracy"] == pytest.approx(5 / 7)


def test_a_class_that_never_occurs_has_no_iou_and_does_not_lower_the_mean() -> None:
    confusion_KK = np.array([[6, 0, 0], [2, 4, 0], [0, 0, 0]])
    scores = Evaluation(confusion_KK, confusion_KK, 1).scores(numbered_classes(3))
    assert list(scores["iou"].values()) == pytest.approx([6 / 8, 4 / 6, None])
    assert scores["miou"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert scores["miou_classes"] == 2


def test_a_perfect_score_of_one_class_is_no_score() -> None:
    pair = (torch.full((1, 3, 2, 2), -1.0), torch.zeros(1, 2, 2, dtype=torch.long))
    scores = evaluate(Threshold(), [pair], 2).scores(
        (ClassInfo("dark", (0, 0, 0)), ClassInfo("bright", (9, 9, 9)))
    )
    assert scores["iou"] == {"dark": 1.0, "bright": None}
    assert (scores["miou"], scores["miou_classes"]) == (None, 1)


def test_one_pixel_of_a_second_class_makes_it_a_score() -> None:
    confusion_KK = np.array([[5, 1], [0, 0]])
    scores = Evaluation(confusion_KK, confusion_KK, 1).scores(numbered_classes(2))
    assert (scores["miou"], scores["miou_classes"]) == (pytest.approx(5 / 12), 2)


def test_predictions_are_compared_at_the_size_of_the_label(samples: list[Sample]) -> None:
    batches = EvaluationBatches(samples[:2], (48, 32))
    image_N3HW, label_NHW = next(iter(batches))
    assert image_N3HW.shape == (1, 3, 32, 48) and label_NHW.shape == (1, 64, 96)
    evaluation = evaluate(Threshold(), [(image_N3HW, (label_NHW == 1).long())], 2)
    assert evaluation.confusion_KK.sum() == 64 * 96


def test_evaluation_goes_through_all_images_in_order(samples: list[Sample]) -> None:
    batches = EvaluationBatches(samples, (96, 64))
    labels = [label_NHW[0].numpy() for _, label_NHW in batches]
    assert len(batches) == len(labels) == len(samples)
    for label_HW, sample in zip(labels, samples, strict=True):
        np.testing.assert_array_equal(label_HW, sample.label_HW)


def test_evaluating_leaves_the_mode_of_the_network_alone() -> None:
    model = Threshold().train()
    predict(model, torch.zeros(1, 3, 8, 8))
    assert model.training


def test_test_time_augmentation_leaves_a_pixelwise_network_unchanged_away_from_borders() -> None:
    image_N3HW = torch.ones(1, 3, 64, 64)
    image_N3HW[..., 32:] = -1
    plain, averaged = (predict(Threshold(), image_N3HW, tta) for tta in (False, True))
    differs = (plain != averaged).nonzero()[:, 2]
    assert ((differs - 32).abs() <= 2).all()


def test_test_time_augmentation_averages_mirror_images() -> None:
    class LeftIsOne(Threshold):
        def forward(self, image_N3HW: Tensor) -> Tensor:
            logits = torch.zeros(len(image_N3HW), 2, *image_N3HW.shape[-2:])
            half = image_N3HW.shape[-1] // 2
            logits[:, 1, :, :half] = 3
            logits[:, 1, :, half:] = -1
            return logits

    assert (predict(LeftIsOne(), torch.zeros(1, 3, 32, 32), tta=True) == 1).float().mean() > 0.9
    assert predict(LeftIsOne(), torch.zeros(1, 3, 32, 32)).float().mean() == 0.5


def test_coarse_logits_are_upsampled_to_the_image() -> None:
    class Coarse(Threshold):
        def forward(self, image_N3HW: Tensor) -> Tensor:
            return super().forward(image_N3HW)[..., ::4, ::4]

    assert full_size_logits(Coarse(), torch.zeros(1, 3, 20, 36)).shape == (1, 2, 20, 36)


def test_the_boundary_band_reaches_as_far_as_it_says() -> None:
    label_HW = np.zeros((21, 40), np.uint8)
    label_HW[:, 20:] = 1
    band_HW = boundary_band(label_HW, pixels=3)
    assert np.flatnonzero(band_HW[10]).tolist() == [17, 18, 19, 20, 21, 22]


def test_boundary_scores_judge_pixels_near_borders_alone() -> None:
    label = torch.zeros(1, 32, 64, dtype=torch.long)
    label[..., 32:] = 1
    image = torch.where(label == 1, 1.0, -1.0)[:, None].repeat(1, 3, 1, 1)
    image[..., 28:32] = 1  # the prediction is four pixels off
    evaluation = evaluate(Threshold(), [(image, label)], 2)
    assert evaluation.boundary_KK.sum() == 32 * 6
    assert evaluation.boundary_KK.tolist() == [[0, 96], [0, 96]]
    assert evaluation.confusion_KK.tolist() == [[28 * 32, 4 * 32], [0, 32 * 32]]


def test_scores_of_pictures_without_a_border_or_a_judged_pixel_are_valid_json() -> None:
    classes = (ClassInfo("dark", (0, 0, 0)), ClassInfo("bright", (9, 9, 9)))
    image_13HW = torch.ones(1, 3, 8, 8)
    plain = evaluate(Threshold(), [(image_13HW, torch.ones(1, 8, 8).int())], 2).scores(classes)
    unjudged = evaluate(Threshold(), [(image_13HW, torch.full((1, 8, 8), 255))], 2).scores(classes)
    assert (plain["miou"], plain["boundary_miou"]) == (None, None)
    assert unjudged["miou"] is None
    json.dumps([plain, unjudged], allow_nan=False)


class Halving(nn.Module):
    """Takes sides that 8 divides alone, as many a U-Net, or none but those given."""

    def __init__(self, only: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.only = only

    def forward(self, image_N3HW: Tensor) -> Tensor:
        size = (image_N3HW.shape[-2], image_N3HW.shape[-1])
        if any(side % 8 for side in size) or (self.only or size) != size:
            raise RuntimeError(f"no skip fits at {size}")
        return image_N3HW[:, :2]


def test_tta_asks_a_network_of_ones_own_for_sizes_as_even_as_the_pictures() -> None:
    image_N3HW = torch.zeros(1, 3, 72, 80)
    assert predict(Halving(), image_N3HW, tta=True).shape[-2:] == (72, 80)
    with pytest.raises(CheckpointError, match="the network at 64x56, which --tta asks for"):
        predict(Halving((72, 80)), image_N3HW, tta=True)


def test_the_confusion_of_many_classes_is_drawn_in_a_figure_of_bounded_size() -> None:
    sizes = []
    for count in (40, 41, 150):
        drawn = io.BytesIO()
        draw_confusion(np.eye(count), numbered_classes(count), drawn)
        sizes.append(cv2.imdecode(np.frombuffer(drawn.getvalue(), np.uint8), 1).shape)
    assert sizes[0] == sizes[1] == sizes[2]
