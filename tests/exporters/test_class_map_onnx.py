import pytest
import torch
from fastseg_exporters.class_map_onnx import PhaseClassMap, class_map_for
from torch import nn

from fastseg import DeployGraph, FastSegNet


@pytest.mark.parametrize("size", [(96, 64), (100, 60), (480, 360)])
@pytest.mark.parametrize("mask_stride", [1, 4])
def test_its_ids_are_those_of_the_deploy_graph(size: tuple[int, int], mask_stride: int) -> None:
    torch.manual_seed(0)
    graph = DeployGraph(FastSegNet(6, "nano"), *size, mask_stride=mask_stride).eval()
    rows, columns = -(-size[1] // 8), -(-size[0] // 8)
    logits = torch.randn(1, 6, rows, columns)
    class_map = class_map_for(graph)
    assert isinstance(class_map, PhaseClassMap)
    same = (class_map(logits) == graph.class_map(logits)).float().mean()
    assert same > 0.9999  # sums in another order may decide a tie otherwise


def test_a_network_whose_logits_have_the_images_size_keeps_the_plain_argmax() -> None:
    graph = DeployGraph(nn.Conv2d(3, 4, 3, padding=1), 64, 48).eval()
    logits = torch.randn(1, 4, 48, 64)
    assert torch.equal(class_map_for(graph)(logits), graph.class_map(logits))
