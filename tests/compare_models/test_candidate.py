import math
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compare_models import memory
from compare_models.candidate import (
    BORDER_SHARE,
    OwnNetworks,
    border_share,
    open_candidates,
    open_module,
    short_name,
    street_image,
)
from compare_models.speed import export_int8
from compare_models.timing import call_of
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.onnx.to_onnx import to_onnx
from fastseg_targets.target import load_target

from fastseg import CheckpointError, DeployGraph
from fastseg.outputs import Reading
from tests.compare_models.conftest import operators
from tests.doubles.own_onnx import own_onnx

SIZE = (128, 64)
MAIN = OwnNetworks(output_name="0")


def test_every_candidate_takes_the_same_bytes_and_gives_torchs_class_map(rival: str) -> None:
    candidates = open_candidates(["nano", rival], SIZE, classes=7, own=MAIN)
    assert [candidate.name for candidate in candidates] == ["nano", "tiny"]
    assert [candidate.is_ours for candidate in candidates] == [True, False]
    for candidate in candidates:
        (ids,) = call_of(candidate.model, candidate.feed, threads=1)()
        assert candidate.graph is not None
        expected = candidate.graph(torch.from_numpy(street_image(SIZE))).numpy()
        assert ids.shape == (1, 64, 128) and ids.dtype == np.uint8
        assert (ids == expected).mean() > 0.999


def test_others_get_resize_and_argmax_and_our_class_map_on_request(rival: str) -> None:
    (plain,) = open_candidates([rival], SIZE, classes=7, own=MAIN)
    (fast,) = open_candidates([rival], SIZE, classes=7, fast_tail=True, own=MAIN)
    assert "NonZero" not in operators(plain.model) and "NonZero" in operators(fast.model)
    ids = [call_of(candidate.model, candidate.feed, 1)()[0] for candidate in (plain, fast)]
    assert (ids[0] == ids[1]).mean() > 0.999


def test_an_onnx_file_that_gives_logits_gets_a_class_map(rival: str, tmp_path: Path) -> None:
    network = open_module(rival, SIZE, 7).eval()
    graph = DeployGraph(network, *SIZE, reading=Reading(7, "0"))
    onnx.save(to_onnx(network, torch.zeros(1, 3, 64, 128), graph), tmp_path / "net.onnx")
    from_file, from_torch = open_candidates(
        [str(tmp_path / "net.onnx"), rival], SIZE, classes=7, own=MAIN
    )
    assert from_file.name == "net" and from_file.graph is None
    ids = [call_of(c.model, c.feed, 1)()[0] for c in (from_file, from_torch)]
    assert ids[0].dtype == np.uint8
    assert (ids[0] == ids[1]).mean() > 0.999


def test_an_unknown_network_is_refused_with_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="variants are nano"):
        open_candidates(["nanoo"], SIZE, classes=7)


def test_equal_names_are_numbered() -> None:
    names = [c.name for c in open_candidates(["nano", "nano"], SIZE, classes=3)]
    assert names == ["nano", "nano-2"]


def test_an_untrained_network_has_as_many_borders_as_a_trained_one() -> None:
    network = open_module("nano", (256, 128), 19)
    graph = DeployGraph(network, 256, 128).eval()
    image_NHW3 = torch.from_numpy(street_image((256, 128)))
    with torch.inference_mode():
        logits = graph.core(graph.normalise(image_NHW3).permute(0, 3, 1, 2))
    assert border_share(logits) == pytest.approx(BORDER_SHARE, abs=0.03)


def test_names_are_short() -> None:
    assert short_name("rivals.nets:ddrnet") == "ddrnet"
    assert short_name("runs/camvid-small/model.safetensors") == "camvid-small"
    assert short_name("files/net.onnx") == "net"


def test_the_int8_form_is_the_graph_that_the_exporter_writes(tmp_path: Path) -> None:
    (candidate,) = open_candidates(["nano-synthetic"], SIZE, classes=11)
    assert candidate.graph is not None
    model = export_int8(candidate.graph)
    source = NetworkSource("nano-synthetic", size=SIZE)
    target, out = load_target("cpu-int8"), tmp_path / "nano.fastseg"
    assert export_bundle(Plan(Recipe(source), (target,), out)).failed == {}
    with zipfile.ZipFile(out) as bundle:
        (name,) = (name for name in bundle.namelist() if name.endswith(".onnx"))
        assert operators(model) == operators(onnx.load_from_string(bundle.read(name)))
    (ids,) = call_of(model, candidate.feed, threads=1)()
    assert ids.shape == (1, 64, 128)


def test_of_a_rivals_two_outputs_none_is_guessed(rival: str) -> None:
    with pytest.raises(CheckpointError, match="say which are, such as --output-name 0"):
        open_candidates([rival], SIZE, classes=7)


def test_a_rival_gets_its_own_normalisation_and_one_logit_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_logit.py").write_text(
        "import torch\ndef one():\n    torch.manual_seed(0)\n    return torch.nn.Conv2d(3, 1, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    bgr_13HW = torch.from_numpy(street_image(SIZE)).permute(0, 3, 1, 2).flip(1) / 255
    with torch.inference_mode():
        probability_1HW = torch.nn.Conv2d(3, 1, 1)(bgr_13HW)[:, 0].sigmoid()
    own = OwnNetworks("unit", "bgr", threshold=float(probability_1HW.median()))
    (candidate,) = open_candidates(["one_logit:one"], SIZE, classes=2, own=own)
    (ids,) = call_of(candidate.model, candidate.feed, threads=1)()
    assert 0.3 < ids.mean() < 0.7
    assert (ids == (probability_1HW > own.threshold).numpy()).mean() > 0.99


def test_memory_is_unknown_where_no_kernel_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Path, "exists", lambda path: False)
    assert math.isnan(memory._status_mb("VmRSS"))
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    assert math.isnan(memory.peak_memory_mb(own_onnx(), {}, 1))


def test_memory_is_unknown_where_the_process_fails_and_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert math.isnan(memory.peak_memory_mb(own_onnx(), {}, 1))  # without a picture
    assert "measuring memory failed: " in capsys.readouterr().err
