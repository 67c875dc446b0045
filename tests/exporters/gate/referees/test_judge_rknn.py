"""Rockchip's referee: its script with a double of the toolkit, and the toolkit where it is."""

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fastseg_exporters.gate.referees import judge_rknn
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.manifest import Artifact

from tests.exporters.gate.referees.small_graphs import CAST, DEQUANTIZE, SIZE, frame, graph

REFEREE = REFEREES["rknn"]
CACHE = cache_folder()  # the user's own, before tests get one of theirs
INSTALLED = REFEREE.is_installed
LOGITS = Artifact("cpu-fp32", "onnx", "fp32", "artifacts/cpu-fp32/model.onnx", (), {"logits": ""})


class Toolkit:
    """RKNN as the script calls it; it computes with ONNX Runtime what the network gives."""

    refuses = ""

    def __init__(self, verbose: bool) -> None:
        self._failing = 0

    def config(self, mean_values: Any, std_values: Any, target_platform: str) -> None:
        assert np.allclose(mean_values, [[128] * 3]) and np.allclose(std_values, [[64] * 3])

    def load_onnx(self, model: str, inputs: Any, input_size_list: Any, outputs: Any) -> int:
        assert (inputs, input_size_list, outputs) == (["normalised"], [[1, 3, 8, 12]], ["logits"])
        self._session = onnxruntime.InferenceSession(model)
        return 0

    def build(self, do_quantization: bool, dataset: str | None) -> int:
        if self.refuses:
            raise ValueError(f"Traceback of its own:\n  some file\n{self.refuses}\n")
        if dataset is not None:
            assert do_quantization
            shapes = {np.load(name).shape for name in Path(dataset).read_text("utf-8").splitlines()}
            assert shapes == {(1, 3, 8, 12)}
        return 0

    def export_rknn(self, path: str) -> int:
        Path(path).write_bytes(b"made")
        return 0

    def init_runtime(self) -> int:
        return 0

    def inference(self, inputs: list[Any], data_format: list[str]) -> list[Any]:
        assert data_format == ["nhwc"]
        return list(self._session.run(None, {"image": inputs[0]}))


def files_of(tmp_path: Path, model: onnx.ModelProto, frames: int) -> dict[str, Any]:
    """Return a request for a model and frames 0.npy, 1.npy, ..."""
    files, work = tmp_path / "files", tmp_path / "work"
    for made in (files, work / "frames", work / "outputs"):
        made.mkdir(parents=True)
    onnx.save(model, files / "model.onnx")
    for index in range(frames):
        np.save(work / "frames" / f"{index}.npy", frame(index))
    places = {"frames": str(work / "frames"), "outputs": str(work / "outputs")}
    return {"folder": str(files), "entry": "model.onnx", "precision": "fp32", "io": {}, **places}


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put the double in the toolkit's place, which works in a folder."""
    api = types.ModuleType("rknn.api")
    api.RKNN = Toolkit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknn", types.ModuleType("rknn"))
    monkeypatch.setitem(sys.modules, "rknn.api", api)
    monkeypatch.setattr(judge_rknn, "stand_in_for_torch", lambda: None)
    monkeypatch.setattr(judge_rknn, "version", lambda name: "0")
    monkeypatch.chdir(folder)


def judged(request: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script's answer with the double in the toolkit's place."""
    stand_in(monkeypatch, folder)
    return judge_rknn.judged(request, folder)


@pytest.mark.parametrize("preparation", [CAST, DEQUANTIZE])
@pytest.mark.parametrize(("mean", "std"), [(128, 64), (0, 255)])
def test_what_stands_before_the_network_is_found_and_its_normalisation_read(
    preparation: str, mean: float, std: float
) -> None:
    model = graph(preparation, mean, std)
    image = judge_rknn.before_the_network(model)
    assert image == "normalised"
    means, stds = judge_rknn.normalisation(model, image)
    assert np.allclose(means, [mean] * 3, atol=1e-3) and np.allclose(stds, [std] * 3, rtol=1e-5)


@pytest.mark.parametrize(
    "preparation",
    [
        ("Sub", "normalised", "mean_picture"),
        ("Sub", "std", "normalised"),
        ("Div", "std", "normalised"),
        ("Mul", "normalised", "normalised"),
    ],
)
def test_what_no_mean_and_deviation_can_say_stays_in_the_network(
    preparation: tuple[str, ...],
) -> None:
    model = graph(DEQUANTIZE)
    mean_13HW = np.ones((1, 3, *SIZE), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(mean_13HW, "mean_picture"))
    operator, *operands = preparation
    model.graph.node.insert(2, onnx.helper.make_node(operator, operands, ["own_way"]))
    model.graph.node[-1].input[0] = "own_way"
    onnx.checker.check_model(model)
    assert judge_rknn.before_the_network(model) == "normalised"


def test_what_asks_for_the_size_alone_stands_in_no_ones_way() -> None:
    model = graph(CAST)
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["image"], ["size"]))
    assert judge_rknn.before_the_network(model) == "normalised"


def test_an_image_that_the_network_takes_beside_the_normalised_one_is_not_cut_off() -> None:
    model = graph(DEQUANTIZE)
    as_half = onnx.helper.make_node("Cast", ["planes"], ["raw"], to=onnx.TensorProto.FLOAT16)
    model.graph.node.append(as_half)
    onnx.checker.check_model(model)
    assert judge_rknn.before_the_network(model) == "planes"


def test_a_preparation_of_pixels_that_are_no_planes_yet_is_refused() -> None:
    model = graph(CAST)
    subtraction = model.graph.node[1]
    subtraction.input[:] = ["mean", "float"]
    image = judge_rknn.before_the_network(model)
    assert image == "float"
    with pytest.raises(ValueError, match=r"float \(1, 8, 12, 3\) is prepared in another way"):
        judge_rknn.normalisation(model, image)


@pytest.mark.parametrize(
    ("count", "ranges"), [(0, 0), (1, 0), (2, 1), (20, 10), (32, 16), (33, 16), (116, 16)]
)
def test_int8_is_judged_on_other_frames_than_those_that_gave_its_ranges(
    count: int, ranges: int
) -> None:
    frames = [Path(f"{index}.npy") for index in range(count)]
    calibration, run = judge_rknn.split(frames)
    assert len(calibration) == ranges and [*calibration, *run] == frames


def test_every_chip_is_built_for_and_what_is_run_is_there_for_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = files_of(tmp_path, graph(DEQUANTIZE), frames=5)
    said = judged(request, tmp_path, monkeypatch)
    assert said["accepted"], said["says"]
    assert (said["facts"]["calibrated_on"], said["facts"]["frames"]) == (2, 3)
    for chip in judge_rknn.CHIPS:
        for precision in judge_rknn.PRECISIONS:
            assert said["facts"][f"{chip}-{precision}"]["as_onnxruntime"] == 1.0
    outputs = Path(request["outputs"])
    assert sorted(path.name for path in outputs.glob("*.npy")) == ["2.npy", "3.npy", "4.npy"]
    assert len(list((outputs / "rk3588-int8").iterdir())) == 3


def test_without_frames_it_is_built_in_half_precision_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = files_of(tmp_path, graph(CAST), frames=0)
    said = judged({**request, "frames": None}, tmp_path, monkeypatch)
    assert said["accepted"] and said["says"] == "builds for rk3588, rk3576, rk3566"
    assert "rk3588-int8" not in said["facts"]


def test_what_the_toolkit_refuses_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toolkit, "refuses", "ValueError: no such op")
    said = judged(files_of(tmp_path, graph(CAST), frames=2), tmp_path, monkeypatch)
    assert (said["accepted"], said["says"]) == (False, "rk3588-fp16: ValueError: no such op")


def orders(tmp_path: Path, ranges: int) -> list[dict[str, Any]]:
    """Return what an exporter and the gate ask for: a build, and two frames."""
    request = files_of(tmp_path, graph(DEQUANTIZE), frames=ranges + 2)
    frames = [str(Path(request["frames"]) / f"{index}.npy") for index in range(ranges + 2)]
    build = {"model": str(Path(request["folder"]) / "model.onnx"), "chip": "rk3566"}
    runs = [{"frame": f, "output": str(tmp_path / Path(f).name)} for f in frames[ranges:]]
    return [{**build, "ranges": frames[:ranges], "made": str(tmp_path / "out.rknn")}, *runs]


def answers(asked: list[Any], monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """Return what the script answers to lines, with the double in the toolkit's place."""
    stand_in(monkeypatch, folder)
    said = io.StringIO()
    judge_rknn.serve([json.dumps(order) for order in asked], said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


@pytest.mark.parametrize("ranges", [0, 3])
def test_it_builds_and_simulates_what_an_exporter_asks_for(
    ranges: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = orders(tmp_path, ranges)
    assert answers(asked, monkeypatch, tmp_path) == [{"version": "0"}, {}, {}]
    assert (tmp_path / "out.rknn").read_bytes() == b"made"
    assert np.load(asked[-1]["output"]).shape == (1, 4, 8, 12)


def test_a_refusal_is_an_answer_and_the_next_order_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toolkit, "refuses", "ValueError: no such op")
    asked = orders(tmp_path, 0)
    said = answers(asked, monkeypatch, tmp_path)
    assert said == [{"refused": "ValueError: no such op"}, *[{"refused": "build first"}] * 2]


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="no RKNN-Toolkit2 here: make referees")
@pytest.mark.parametrize("preparation", [CAST, DEQUANTIZE])
def test_the_toolkit_builds_and_runs_as_onnx_runtime_does(
    preparation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    request = files_of(tmp_path, graph(preparation), frames=4)
    (tmp_path / "work" / "outputs").rmdir()
    verdict = judge(REFEREE, LOGITS, Path(request["folder"]), tmp_path / "work")
    assert verdict.says.startswith("builds for rk3588, rk3576, rk3566"), verdict.says
    assert verdict.facts["rk3588-fp16"]["as_onnxruntime"] >= 0.98
    assert np.load(tmp_path / "work/outputs/2.npy").shape == (1, 4, 8, 12)


def test_it_judges_float_logits_alone() -> None:
    assert REFEREE.judges(LOGITS)
    for other in ({"precision": "int8"}, {"io": {"classes": "uint8"}}, {"format": "tflite"}):
        assert not REFEREE.judges(Artifact(**{**vars(LOGITS), **other}))
