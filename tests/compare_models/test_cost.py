import torch
from compare_models.candidate import export, open_module
from fastseg_exporters.onnx.to_onnx import to_onnx
from torch import nn

from fastseg import DeployGraph, profile
from fastseg.onnx_graph import cost_of


def test_the_graphs_cost_is_that_of_the_torch_profile() -> None:
    network = open_module("nano", (128, 64), 19)
    expected = profile(network, (128, 64))
    cost = cost_of(export(DeployGraph(network, 128, 64).eval()))
    assert cost.macs == expected.macs
    assert 0.97 * expected.parameters < cost.parameters < expected.parameters  # norms are folded


def test_transposed_convolutions_and_matrix_products_are_counted() -> None:
    graph = DeployGraph(nn.Conv2d(3, 2, 1), 32, 32)
    up = nn.ConvTranspose2d(3, 4, 2, stride=2, bias=False)
    model = to_onnx(up.eval(), torch.zeros(1, 3, 8, 8), graph)
    assert cost_of(model).macs == 8 * 8 * 3 * 4 * 2 * 2
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    model = to_onnx(linear.eval(), torch.zeros(1, 3, 2, 2), graph)
    assert (cost_of(model).macs, cost_of(model).parameters) == (60, 65)
