"""What docs/platforms/web.md says of ids and time: pytest -s -m figures tests/fastseg_web."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter

import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner
from fastseg_web.server import PageServer, choose_artifact, contents

from tests.doubles.browser import CHROMIUM, Browser
from tests.fastseg_web.test_page import CAMERA, FIGURES, HELPERS, array, differences, frame_on_page

pytestmark = [
    pytest.mark.figures,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif("FASTSEG_CAMVID" not in os.environ, reason="FASTSEG_CAMVID is not set"),
]
PICTURES = 100
TARGETS = ("cpu-fp32", "cpu-int8")


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano-camvid at 480x360, exported as a user would."""
    bundle = tmp_path_factory.mktemp("nano") / "nano.fastseg"
    data = f"camvid:{os.environ['FASTSEG_CAMVID']}"
    options = [word for target in TARGETS for word in ("--target", target)]
    options += ["--size", "480x360", "--calibration", data, "--verify", data, "-o", str(bundle)]
    code = "from fastseg_exporters.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, "nano-camvid", *options], check=True)
    return bundle


def test_ids_and_time_of_the_page_beside_python(
    nano: Path, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    pictures = sorted(Path(os.environ["FASTSEG_CAMVID"], "test/images").iterdir())
    frames = [read_image(picture) for picture in islice(pictures, PICTURES)]
    in_browser_ms = {}
    for target in TARGETS:
        with open_bundle(nano) as bundle:
            served = contents(bundle, choose_artifact(bundle, target), files)
        with (
            RealtimeSegmentation(nano, target=target, threads=1) as session,
            PageServer(served, "127.0.0.1", 0, None) as server,
        ):
            Thread(target=server.serve, daemon=True).start()
            with Browser(tmp_path / target, f"{server.url}?threads=1", *CAMERA) as page:
                page.wait_for(f"parseFloat({FIGURES}) > 0")
                print(f"\n{target}: {page.value(FIGURES)}")
                page.value(HELPERS + "; halt()")
                different, ratios, times_ms = 0, [], []
                for frame in frames:
                    page.value(f"frame = {frame_on_page(frame)}; 0")
                    found, took_ms = page.value(
                        "(start => infer(frame).then(ids => [ids, performance.now() - start]))"
                        "(performance.now()).then(([ids, ms]) => [told(ids), ms])"
                    )
                    start_s = perf_counter()
                    expected = session.infer(frame)
                    ratios.append(took_ms / 1e3 / (perf_counter() - start_s))
                    times_ms.append(took_ms)
                    ids = array(found, 360, 480)
                    if target == "cpu-fp32":
                        different += differences(ids, expected, frame)
                    else:
                        different += int(np.count_nonzero(ids != expected))
            server.stop()
        in_browser_ms[target] = times_ms
        print(
            f"{target}: {different} of {len(frames) * 480 * 360} ids differ; a frame takes "
            f"{median(ratios):.2f} of Python's time, {min(times_ms):.0f} ms at best, one thread"
        )
        assert different <= (1e-6 if target == "cpu-fp32" else 1e-4) * len(frames) * 480 * 360
    best = [min(in_browser_ms[target]) for target in reversed(TARGETS)]
    print(f"int8 takes {best[0] / best[1]:.2f} of fp32's time in the browser")
