import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip(  # not openvino itself, which would report its import
    "fastseg_runtime.engines.backend_openvino",
    reason="needs openvino (make test-slow installs it)",
    exc_type=ImportError,
)

from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.backend_openvino import _device

from tests.doubles.tiny_bundle import HEIGHT, WIDTH, argmax_onnx, empty_plan, noise
from tests.doubles.tiny_onnx import tiny_onnx

pytestmark = pytest.mark.slow
# What openvino-telemetry is to openvino; it notes that it was imported and what was sent.
TELEMETRY = """
from pathlib import Path
notes = Path(__file__).with_name("notes.txt")
class Telemetry:
    def send_event(self, *event): notes.write_text(str(event))
    def __init__(self, *args, **options): pass
"""
NO_NETWORK = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
"""
RUN = """
import numpy as np
from fastseg_runtime import RealtimeSegmentation
with RealtimeSegmentation(sys.argv[1]) as session:
    session.infer(np.zeros((4, 6, 3), np.uint8))
    print(session.info.backend, sys.modules.get("openvino_telemetry", "not there"))
import openvino_telemetry  # an app's own use of it is left as it is
"""


def write(folder: Path, content: bytes, precision: str = "bf16", **fields: Any) -> Path:
    plan = empty_plan().with_artifact(
        "intel-bf16", content, precision=precision, requires={"backend": "openvino"}, **fields
    )
    return plan.write(folder / "tiny.fastseg")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_ids_are_those_of_onnx_runtime(precision: str, tmp_path: Path) -> None:
    path = write(tmp_path, argmax_onnx(WIDTH, HEIGHT), precision)
    other = RealtimeSegmentation(path, backend="onnxruntime")
    with RealtimeSegmentation(path, threads=1) as session, other:
        assert (session.info.backend, other.info.backend) == ("openvino", "onnxruntime")
        for seed in range(3):  # each frame is another array
            frame = noise(seed=seed)
            frame.flags.writeable = False  # as a ROS message's is
            assert np.array_equal(session.infer(frame), other.infer(frame))


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = RealtimeSegmentation(write(tmp_path, argmax_onnx(WIDTH, HEIGHT)))
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.infer(noise())


def test_a_graph_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, argmax_onnx(2 * WIDTH, HEIGHT))
    with pytest.raises(NoBackendError, match=r"one input of uint8 \[1, .* got uint8"):
        RealtimeSegmentation(path)


def test_a_graph_that_names_a_file_is_refused_before_openvino_sees_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    model = onnx.load_from_string(tiny_onnx())
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "secret"))
    with pytest.raises(BundleError, match="names the file"):
        RealtimeSegmentation(write(tmp_path, model.SerializeToString()))


def test_a_device_that_is_not_here_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, argmax_onnx(WIDTH, HEIGHT))
    with pytest.raises(NoBackendError, match="no device 'npu:7' here; choose one of cpu"):
        RealtimeSegmentation(path, device="npu:7")


@pytest.mark.parametrize(
    ("asked", "there", "name"),
    [
        ("auto", ["CPU", "GPU"], "CPU"),
        ("gpu", ["CPU", "GPU"], "GPU"),
        ("gpu:0", ["CPU", "GPU"], "GPU.0"),
        ("gpu", ["CPU", "GPU.0", "GPU.1"], "GPU"),
        ("gpu:1", ["CPU", "GPU.0", "GPU.1"], "GPU.1"),
        ("npu", ["CPU", "NPU"], "NPU"),
    ],
)
def test_a_device_has_openvinos_name(asked: str, there: list[str], name: str) -> None:
    assert _device(asked, there) == name


def test_nothing_is_contacted_and_no_telemetry_package_is_used(tmp_path: Path) -> None:
    package = tmp_path / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(TELEMETRY)
    (package / "backend/__init__.py").write_text("backend_ga4 = None\n")
    bundle = write(tmp_path, argmax_onnx(WIDTH, HEIGHT))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    notes = package / "notes.txt"

    def run(code: str) -> str:
        command = [sys.executable, "-c", NO_NETWORK + code, str(bundle)]
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(RUN).split() == ["openvino", "not", "there"]
    assert not notes.exists()
    run("import openvino")  # as it comes, it would have been used
    assert notes.exists()


SIGNAL = """
import os, signal, sys
from fastseg_runtime import RealtimeSegmentation
first, second = (RealtimeSegmentation(sys.argv[1], backend="openvino") for _ in range(2))
first.close()
second.close()
signal.signal(signal.SIGINT, lambda *noted: print("noted"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_after_networks_were_closed_in_turn_is_heard(tmp_path: Path) -> None:
    path = write(tmp_path, argmax_onnx(WIDTH, HEIGHT))
    command = [sys.executable, "-c", SIGNAL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "noted\n"), done.stderr
