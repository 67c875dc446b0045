"""The scenes that a bundle's self-test holds, and what is recorded of them."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.reference import hard_images, selftest_scenes
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.reader import NATURAL_SCENES, open_bundle
from fastseg_runtime.bundle.writer import entry, pack_selftests, read_members, write_bundle
from fastseg_targets.target import load_target

DATA = "synthetic:size=96x64,train=4,val=4,test=2"


@pytest.mark.parametrize(("width", "height"), [(96, 64), (480, 360), (1024, 512), (33, 17)])
def test_hard_pictures_have_no_border_or_one_everywhere_and_stay_small(
    width: int, height: int
) -> None:
    dark, bright, noise, mosaic = images = hard_images(width, height, (0, 255))
    assert all(image.shape == (height, width, 3) and image.dtype == np.uint8 for image in images)
    assert dark.max() == 0 and bright.min() == 255
    assert np.diff(noise.astype(int), axis=1).any(axis=2).mean() > 0.99
    cells = mosaic[: height // 16 * 16 : 16, : width // 16 * 16 : 16].astype(int)
    assert np.diff(cells, axis=0).any(axis=2).all() and np.diff(cells, axis=1).any(axis=2).all()
    classes_HW = np.zeros((height, width), np.uint8)
    packed = pack_selftests([(image, classes_HW) for image in images])
    assert sum(map(len, packed.values())) < 30_000


def test_plain_pictures_have_a_level_at_which_rounding_decides_nothing() -> None:
    class Threshold:
        """Class 1 from a level on."""

        def __init__(self, level: int) -> None:
            self.level = level

        def infer_new(self, image_HW3: Any) -> Any:
            return (image_HW3[..., 0] >= self.level).astype(np.uint8)

    for level, dark, bright in ((3, 6, 255), (252, 0, 249), (128, 0, 255)):
        runner: Any = Threshold(level)
        network: Any = SimpleNamespace(info=SimpleNamespace(width=48, height=32))
        scenes = selftest_scenes(network, runner)[NATURAL_SCENES:]
        assert [int(image.max()) for image, _ in scenes[:2]] == [dark, bright]


@pytest.mark.slow
def test_each_scene_has_an_agreement_of_its_own_and_older_bundles_keep_their_scenes(
    source: NetworkSource, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.fastseg"
    plan = Plan(Recipe(source, Calibration(DATA, 4)), (load_target("cpu-fp32"),), path, DATA, 2)
    assert export_bundle(plan).failed == {}
    manifest, contents = read_members(path)
    assert len(manifest.selftest) == NATURAL_SCENES + 4
    extra = manifest.artifacts[0].extra
    assert len(extra["selftest_agreements"]) == len(manifest.selftest)
    assert extra["selftest_agreement"] == min(extra["selftest_agreements"]) > 0.99
    assert manifest.artifacts[0].io["num_classes"] == len(manifest.classes)
    with RealtimeSegmentation(path) as session:
        assert session.info.selftest_agreement is not None

    # As 0.1.0 wrote it: two scenes, one agreement.
    with open_bundle(path) as bundle:
        packed = pack_selftests(bundle.selftests(NATURAL_SCENES))
    old = dataclasses.replace(
        manifest,
        selftest=tuple(entry(name, data) for name, data in packed.items()),
        artifacts=(
            dataclasses.replace(manifest.artifacts[0], extra={"selftest_agreement": 1.0}, io={}),
        ),
    )
    files = {name: data for name, data in contents.items() if not name.startswith("selftest/")}
    write_bundle(path, old, files | packed)
    RealtimeSegmentation(path).close()
    more = dataclasses.replace(plan, targets=(load_target("cpu-int8-weights"),))
    assert export_bundle(more).failed == {}
    manifest, _ = read_members(path)
    assert len(manifest.selftest) == NATURAL_SCENES
    assert len(manifest.artifacts[1].extra["selftest_agreements"]) == NATURAL_SCENES
    RealtimeSegmentation(path, target="cpu-int8-weights").close()
