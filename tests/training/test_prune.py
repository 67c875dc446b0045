from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_targets.target import load_target
from fastseg_training import SegmentationTrainer
from fastseg_training.build_network import start_from

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    DeployGraph,
    FastSegNet,
    load_checkpoint,
    open_network,
    profile,
    save_checkpoint,
)

pytest.importorskip("torch_pruning", reason="needs the extra prune")
from fastseg_training.prune import WIDTH_MULTIPLE, prune

SIZE = (96, 64)


@pytest.fixture(scope="module")
def whole() -> FastSegNet:
    torch.manual_seed(0)
    return FastSegNet(3, "nano")


@pytest.fixture(scope="module")
def narrow(whole: FastSegNet) -> FastSegNet:
    return prune(whole, 0.4, SIZE)


def test_the_wanted_share_of_macs_is_saved_and_not_much_more(
    whole: FastSegNet, narrow: FastSegNet
) -> None:
    saved = 1 - profile(narrow, SIZE).macs / profile(whole, SIZE).macs
    assert 0.4 <= saved < 0.55


@pytest.mark.parametrize(("share", "warned"), [(0.01, True), (0.4, False)])
def test_what_is_saved_is_said_and_warned_of_where_it_is_not_what_was_asked_for(
    whole: FastSegNet, share: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = prune(whole, share, SIZE)
    saved = 1 - profile(narrow, SIZE).macs / profile(whole, SIZE).macs
    told = capsys.readouterr().err
    assert f"{saved:.1%} saved" in told
    assert told.startswith("WARNING") == (f"{share:.1%} asked for" in told) == warned


def test_the_network_that_was_pruned_stays_whole(whole: FastSegNet, narrow: FastSegNet) -> None:
    assert profile(whole, SIZE).macs == profile(FastSegNet(3, "nano"), SIZE).macs


def test_widths_stay_multiples_that_kernels_like(narrow: FastSegNet) -> None:
    convs = [m for m in narrow.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(c.out_channels % WIDTH_MULTIPLE == 0 for c in convs if c.out_channels != 3)


def test_all_heads_still_know_the_classes(narrow: FastSegNet) -> None:
    outputs = narrow.eval()(torch.zeros(1, 3, 64, 96), auxiliary=True)
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 64, 96)] * 3


@pytest.mark.parametrize("share", [0, 1, -0.5, 0.9])
def test_shares_that_cannot_be_saved_are_refused(whole: FastSegNet, share: float) -> None:
    with pytest.raises(ValueError, match="share of MACs to save"):
        prune(whole, share, SIZE)


def save(model: FastSegNet, path: Path, classes: tuple[ClassInfo, ...], pruned: bool) -> Path:
    save_checkpoint(path, model, CheckpointInfo("nano", classes, *SIZE, pruned=pruned))
    return path


def test_a_pruned_checkpoint_comes_back_and_deploys_like_any_other(
    narrow: FastSegNet, classes: tuple[ClassInfo, ...], tmp_path: Path
) -> None:
    path = save(narrow, tmp_path / "narrow.safetensors", classes, pruned=True)
    loaded, info = load_checkpoint(path)
    assert info.pruned
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(loaded(image), narrow.eval()(image))
    frame = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    ids = DeployGraph(loaded, *SIZE)(frame)
    expected = narrow((frame.permute(0, 3, 1, 2).float() - 128) / 64).argmax(1)
    assert (ids == expected).float().mean() > 0.999


def test_a_narrow_checkpoint_that_does_not_say_so_is_an_error(
    narrow: FastSegNet, classes: tuple[ClassInfo, ...], tmp_path: Path
) -> None:
    path = save(narrow, tmp_path / "narrow.safetensors", classes, pruned=False)
    with pytest.raises(CheckpointError, match="weights do not fit"):
        load_checkpoint(path)


def test_a_pruned_network_trains_on_and_can_be_the_start_of_another_run(
    make_trainer: Callable[..., SegmentationTrainer],
    narrow: FastSegNet,
    classes: tuple[ClassInfo, ...],
    tmp_path: Path,
) -> None:
    path = save(narrow, tmp_path / "narrow.safetensors", classes, pruned=True)
    again = FastSegNet(3, "nano")
    start_from(again, open_network(path), str(path), classes)
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(again.eval()(image), narrow.eval()(image))
    make_trainer(model=again, steps=2, val_loader=None).train()
    other = FastSegNet(2, "nano")
    start_from(other, open_network(path), str(path), classes[:2])
    assert other.eval()(image).shape == (1, 2, 64, 96)


@pytest.mark.parametrize("count", [3, 2])
def test_a_network_whose_classifier_was_narrowed_too_can_be_the_start_of_another(
    count: int, classes: tuple[ClassInfo, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pruned = prune(FastSegNet(3, "nano"), 0.8, SIZE)
    assert pruned.head[1].in_channels < FastSegNet(3, "nano").head[1].in_channels
    path = save(pruned, tmp_path / "narrow.safetensors", classes, pruned=True)
    again = FastSegNet(count, "nano")
    start_from(again, open_network(path), str(path), classes[:count])
    image = torch.randn(1, 3, 64, 96)
    found = again.eval()(image)
    assert found.shape == (1, count, 64, 96)
    if count == 3:
        torch.testing.assert_close(found, pruned.eval()(image))


@pytest.mark.slow
def test_a_pruned_checkpoint_is_exported_verified_and_run_like_any_other(
    narrow: FastSegNet, classes: tuple[ClassInfo, ...], tmp_path: Path
) -> None:
    checkpoint = save(narrow, tmp_path / "narrow.safetensors", classes, pruned=True)
    plan = Plan(
        Recipe(NetworkSource(str(checkpoint))), (load_target("cpu-fp32"),), tmp_path / "n.fastseg"
    )
    outcome = export_bundle(plan)
    assert not outcome.failed
    (artifact,) = outcome.manifest.artifacts
    assert artifact.verification["agreement"] > 0.999
    frame = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    with RealtimeSegmentation(plan.out) as exported, RealtimeSegmentation(checkpoint) as whole:
        assert (exported.infer(frame) == whole.infer(frame)).mean() > 0.999
