"""docs/masks.md: its code runs as it stands, and its pictures are those of the script."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/masks.md").read_text("utf-8")
PICTURES = set(re.findall(r"\(images/(\w+\.png)\)", PAGE))


def test_the_snippets_run_in_their_order_on_a_generated_street() -> None:
    from fastseg.data import open_dataset

    dataset = open_dataset("synthetic:320x160", "val")
    scene = dataset[8]

    def infer(frame: Any, confidence: Any = None) -> Any:
        if confidence is not None:
            confidence.fill(200)
        return scene.label_HW

    seg = SimpleNamespace(classes=dataset.classes, infer=infer)
    names: dict[str, Any] = {"frame": scene.image_HW3, "seg": seg}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "docs/masks.md", "exec"), names)
    assert names["nearest"].any() and names["area"] is not None
    assert names["crop"].shape[0] == names["box"].bottom - names["box"].top
    kept = names["alpha"][..., 0] == 255
    np.testing.assert_array_equal(names["mixed"][kept], names["frame"][kept])


@pytest.mark.slow
def test_the_script_draws_the_pictures_of_the_page_and_no_other(tmp_path: Path) -> None:
    script = ROOT / "tools/docs_pictures/draw_masks.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=120)
    assert {path.name for path in tmp_path.iterdir()} == PICTURES


def test_the_pictures_are_there_and_small() -> None:
    for name in PICTURES:
        assert 0 < (ROOT / "docs/images" / name).stat().st_size < 50_000, name
