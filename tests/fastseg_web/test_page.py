"""The page in a real browser against Python without OpenCV: bytes, ids, camera, what it says."""

import base64
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_exporters import ModelOptimizer
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.bundle.contract import contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, OutputSpec
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner
from fastseg_runtime.frames.draw import overlay
from fastseg_web.server import PageServer, choose_artifact, contents
from onnx import TensorProto

from fastseg.checkpoint import load_checkpoint
from tests.doubles.browser import CHROMIUM, Browser
from tests.doubles.tiny_bundle import (
    CLASSES,
    HEIGHT,
    WIDTH,
    BundlePlan,
    argmax_onnx,
    empty_plan,
    full_plan,
    noise,
    strongest_channel,
)
from tests.fastseg_web.conftest import Serve
from tests.fastseg_web.test_server import certificate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
WEIGHTS = Path(__file__).parents[2] / "fastseg/weights/nano-camvid.safetensors"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# Of frames, (height, width): single pixels and rows, the network's own, prime, larger both ways.
SIZES = [(1, 1), (1, 90), (77, 1), (HEIGHT, WIDTH), (31, 47), (72, 128), (101, 67), (20, 300)]
SAID, FIGURES = (f"document.getElementById('{name}').textContent" for name in ("said", "figures"))
STOPPED = f"{SAID} !== ''"
ROUNDING = 1e-4  # scores of up to 22 differed by 1.5e-5 between WASM and x86
OWN_NAME = socket.gethostname().lower()
# Arrays as text, in and out, and a camera that gives no frame any more.
HELPERS = """
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const frameOf = (text, width) => new ImageData(new Uint8ClampedArray(bytes(text)), width);
const told = array => btoa(Array.from(array, byte => String.fromCharCode(byte)).join(""));
const halt = () => { HTMLVideoElement.prototype.requestVideoFrameCallback = () => {}; };
0
"""
Array = np.ndarray[Any, Any]
Visit = Callable[..., str]


@pytest.fixture(autouse=True)
def without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)


@pytest.fixture(scope="module")
def idle(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page that is refused the camera: for what can be computed on it."""
    folder = tmp_path_factory.mktemp("idle")
    with open_bundle(full_plan().write(folder / "tiny.fastseg")) as bundle:
        served = contents(bundle, choose_artifact(bundle), files)
    with PageServer(served, "127.0.0.1", 0, None) as server:
        Thread(target=server.serve, daemon=True).start()
        options = (CAMERA[0], "--deny-permission-prompts")
        with Browser(folder / "profile", server.url, *options) as page:
            page.wait_for(STOPPED)
            page.value(HELPERS)
            yield page
        server.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a camera, which finds this machine by its name in the network."""
    lan = (f"--host-resolver-rules=MAP {OWN_NAME} 127.0.0.1", "--ignore-certificate-errors")
    with Browser(tmp_path_factory.mktemp("profile"), "about:blank", *CAMERA, *lan) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, files: dict[str, bytes], serve: Serve, tmp_path: Path) -> Visit:
    """Opens the page of a bundle and waits until it runs, or says why not."""

    def start(bundle: BundlePlan | Path, tls: ssl.SSLContext | None = None, host: str = "") -> str:
        path = bundle if isinstance(bundle, Path) else bundle.write(tmp_path / "tiny.fastseg")
        url = serve(path, files, tls).url.replace("127.0.0.1", host or "127.0.0.1")
        browser.ask("Page.navigate", url=url)
        browser.wait_for(f"location.href === '{url}' && (newest !== undefined || {STOPPED})")
        browser.value(HELPERS)
        return str(browser.value(SAID))

    return start


def frame_on_page(frame_HW3: Array) -> str:
    alpha_HW = np.full(frame_HW3.shape[:2], 255, np.uint8)
    text = base64.b64encode(np.dstack([frame_HW3, alpha_HW]).tobytes()).decode()
    return f"frameOf('{text}', {frame_HW3.shape[1]})"


def array(text: str, *shape: int) -> Array:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def test_the_page_has_150_lines_at_most() -> None:
    page = resources.files("fastseg_web").joinpath("page.html").read_text("utf-8").splitlines()
    assert len(page) <= 150 and max(map(len, page)) <= 120


@pytest.mark.parametrize("mask_stride", [1, 4])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_input_ids_and_overlay_are_those_of_python(
    idle: Browser, resize: str, mask_stride: int
) -> None:
    spec = InputSpec(WIDTH, HEIGHT, mean=120.5, resize=resize)  # .5 rounds to even, as in Python
    mask_size = HEIGHT // mask_stride, WIDTH // mask_stride
    plan = full_plan(input=spec, output=OutputSpec(mask_stride=mask_stride))
    table = json.dumps(contract(plan.manifest, plan.manifest.artifacts[0]))
    palette_K3 = np.array([entry.color for entry in CLASSES], np.uint8)
    for seed, (height, width) in enumerate(SIZES):
        frame = noise(height, width, seed)
        small_hw = noise(*mask_size, seed)[..., 0] % 5  # some have no class
        given = base64.b64encode(small_hw.tobytes()).decode()
        input_HW3, ids_HW, drawn_HW4 = idle.value(
            f"(() => {{ contract = {table}; const frame = {frame_on_page(frame)};"
            f"const fit = new FrameFit(contract, {width}, {height});"
            f"const image = told(fit.toInput(frame.data)), ids = fit.toFrame(bytes('{given}'));"
            "return [image, told(ids), told(overlay(frame, ids).data)]; })()"
        )
        fit = frame_runner.FrameFit((height, width), spec, mask_size, False)
        assert np.array_equal(array(input_HW3, HEIGHT, WIDTH, 3), fit.to_input(frame)[0])
        expected = np.empty((height, width), np.uint8)
        fit.to_frame(small_hw, expected)
        assert np.array_equal(array(ids_HW, height, width), expected)
        drawn = array(drawn_HW4, height, width, 4)[..., :3]
        assert np.array_equal(drawn, overlay(frame, expected, palette_K3))


# Of the input and of its scores, (height, width): a whole factor, padding that hangs over, no
# factor in common, one score.
@pytest.mark.parametrize(
    ("size", "scores"),
    [((32, 48), (4, 6)), ((30, 44), (4, 6)), ((30, 44), (5, 6)), ((9, 7), (1, 1))],
)
@pytest.mark.parametrize("cover", ["padded", "image"])
@pytest.mark.parametrize("overflows", [False, True])
def test_ids_of_logits_are_those_of_python(
    idle: Browser, overflows: bool, cover: str, size: tuple[int, int], scores: tuple[int, int]
) -> None:
    logits_Khw = np.random.default_rng(0).standard_normal((5, *scores)).astype(np.float32)
    if overflows:
        logits_Khw[1, 0, 0] = np.nan
    expected = frame_runner.LogitsToClasses(scores, size, cover == "padded")(logits_Khw)
    for layout, logits in (("NCHW", logits_Khw), ("NHWC", logits_Khw.transpose(1, 2, 0))):
        output = {"height": size[0], "width": size[1], "layout": layout, "cover": cover}
        given = base64.b64encode(np.ascontiguousarray(logits).tobytes()).decode()
        found = idle.value(
            f"told(decode({{data: new Float32Array(bytes('{given}').buffer),"
            f"dims: {[1, *logits.shape]}}}, {json.dumps(output)}))"
        )
        assert np.array_equal(array(found, *size), expected)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped nano network at 480x360."""
    folder = tmp_path_factory.mktemp("nano")
    network, info = load_checkpoint(WEIGHTS)
    content = ModelOptimizer(network, (480, 360)).export_to_onnx(folder / "nano.onnx").read_bytes()
    classes = [ClassInfo(entry.name, entry.color) for entry in info.classes]
    plan = empty_plan(480, 360, classes=classes).with_artifact("cpu-fp32", content)
    return plan.write(folder / "nano.fastseg")


def undecided(frame_HW3: Array) -> Array:
    """Where the two best scores of nano, in PyTorch, are equal but for the rounding of floats."""
    spec, out_HW = InputSpec(480, 360), np.empty(frame_HW3.shape[:2], np.uint8)
    fit = frame_runner.FrameFit(frame_HW3.shape[:2], spec, (360, 480), False)
    image_1HW3 = torch.tensor(fit.to_input(np.ascontiguousarray(frame_HW3)))
    with torch.no_grad():
        network = load_checkpoint(WEIGHTS)[0].eval()
        logits_1KHW = network((image_1HW3.permute(0, 3, 1, 2).float() - spec.mean) / spec.std)
    best_12HW = logits_1KHW.topk(2, dim=1).values
    fit.to_frame((best_12HW[0, 0] - best_12HW[0, 1] < ROUNDING).numpy().astype(np.uint8), out_HW)
    return out_HW > 0


def differences(found_HW: Array, expected_HW: Array, frame_HW3: Array) -> int:
    """How many ids differ, each of them one that the network leaves to rounding."""
    different_HW = found_HW != expected_HW
    assert not different_HW.any() or undecided(frame_HW3)[different_HW].all()
    return int(different_HW.sum())


def real_frames() -> list[Array]:
    """CamVid's pictures, where they are, as they are and in other sizes; noise."""
    frames = [noise(360, 480)]
    if "FASTSEG_CAMVID" in os.environ:
        folder = Path(os.environ["FASTSEG_CAMVID"], "test/images")
        frames += [read_image(picture) for picture in sorted(folder.iterdir())[::29]]
        frames += [frames[1][:, 40:440], frames[2][::2, ::2], frames[3].repeat(3, 0).repeat(3, 1)]
    return frames


def test_every_id_of_a_file_is_that_of_python_of_the_cameras_frames_too(
    nano: Path, browser: Browser, visit: Visit
) -> None:
    assert visit(nano) == ""
    browser.wait_for(f"parseFloat({FIGURES}) > 0")
    print(f"{browser.value(FIGURES)} in {browser.value('navigator.userAgent')}")
    assert browser.value("crossOriginIsolated")
    assert browser.value("ort.env.wasm.numThreads === Math.min(navigator.hardwareConcurrency, 4)")
    browser.value("halt()")
    height, width, rgba, ids = browser.value(
        "[newest.frame.height, newest.frame.width, told(newest.frame.data), told(newest.ids)]"
    )
    frame = np.ascontiguousarray(array(rgba, height, width, 4)[..., :3])
    assert len(np.unique(frame)) > 10
    different = pixels = 0
    with RealtimeSegmentation(nano) as session:
        different += differences(array(ids, height, width), session.infer(frame), frame)
        for frame in real_frames():
            found = browser.value(f"infer({frame_on_page(frame)}).then(told)")
            found_HW = array(found, *frame.shape[:2])
            different += differences(found_HW, session.infer(frame), frame)
            pixels += found_HW.size
        assert different <= 1e-6 * pixels
        legend = browser.value("document.getElementById('legend').innerText").split("\n")
        assert legend == [entry.name for entry in session.classes]
    for size in ((360, 780), (780, 360), (1280, 800)):
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": True}
        browser.ask("Emulation.setDeviceMetricsOverride", **metrics)
        assert browser.value("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_ids_of_other_integers_are_taken_too(browser: Browser, visit: Visit, kind: int) -> None:
    assert visit(empty_plan().with_artifact("cpu-fp32", argmax_onnx(output_type=kind))) == ""
    browser.value("halt()")
    frame = noise()
    found = browser.value(f"infer({frame_on_page(frame)}).then(told)")
    assert np.array_equal(array(found, HEIGHT, WIDTH), strongest_channel(frame))


def test_a_page_without_its_camera_says_what_to_do(idle: Browser) -> None:
    assert idle.value(SAID).startswith("the camera was refused; allow it")


def test_an_engine_that_gives_something_else_than_pytorch_is_not_shown(
    browser: Browser, visit: Visit
) -> None:
    image_HW3 = noise()
    wrong = (strongest_channel(image_HW3) + 1) % 3
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx()).with_scene(image_HW3, wrong)
    assert visit(plan) == "self-test: only 0 of scene 0 as in PyTorch, expected 0.99"
    assert browser.value("newest === undefined")


def test_a_network_that_is_not_what_its_bundle_says_is_told(visit: Visit) -> None:
    plan = empty_plan(output=OutputSpec(mask_stride=2)).with_artifact("cpu-fp32", argmax_onnx())
    assert visit(plan) == f"its bundle promises other ids than 1,{HEIGHT},{WIDTH}"


def test_classes_are_text_whatever_they_are_called(browser: Browser, visit: Visit) -> None:
    name = "<img src=x onerror=document.title='run'></script>"
    assert visit(full_plan(classes=(replace(CLASSES[0], name=name), *CLASSES[1:]))) == ""
    assert browser.value("document.querySelector('li').textContent") == name
    assert browser.value("document.title") == "fastseg"


def test_a_phone_gets_the_camera_over_https_and_is_told_so_without(
    browser: Browser, visit: Visit, tmp_path: Path
) -> None:
    told = "no camera here: browsers give it to https:// and localhost alone"
    assert visit(full_plan(), host=OWN_NAME) == told
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(tmp_path))
    assert visit(full_plan(), tls, OWN_NAME) == ""
    assert browser.value("crossOriginIsolated && location.protocol === 'https:'")


def test_two_browsers_see_their_own_cameras(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    assert visit(full_plan()) == ""
    url = browser.value("location.href")
    with Browser(tmp_path / "profile", f"{url}?threads=1", *CAMERA) as other:
        other.wait_for(f"{FIGURES}.endsWith('threads: 1')")
    assert browser.value(SAID) == ""


def test_the_address_sets_as_many_threads_as_the_processor_has(
    visit: Visit, browser: Browser, tmp_path: Path
) -> None:
    assert visit(full_plan()) == ""
    url = browser.value("location.href")
    with Browser(tmp_path / "profile", "about:blank", *CAMERA) as other:
        other.ask("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=11)
        for asked, expected in (("?threads=10", 10), ("?threads=12", 11), ("?threads=0", 4)):
            other.ask("Page.navigate", url=url + asked)
            other.wait_for(f"location.search === '{asked}' && {FIGURES}.includes(' threads: ')")
            assert other.value("ort.env.wasm.numThreads") == expected
