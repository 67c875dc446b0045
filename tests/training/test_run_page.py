import io
import re
from pathlib import Path

import numpy as np
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_training.evaluate import Evaluation
from fastseg_training.pictures import draw_confusion
from fastseg_training.run_folder import RunFolder
from fastseg_training.run_page import WORST, WorstPictures, write_page

from fastseg import CheckpointInfo

EVIL = "<script>alert('x')</script>&\"\udc80"


def test_the_page_is_self_contained_and_shows_no_text_as_it_came(tmp_path: Path) -> None:
    classes = (ClassInfo("ground", (0, 0, 0)), ClassInfo(EVIL[:20], (1, 2, 3)))
    folder = tmp_path / "<b>"
    folder.mkdir()
    run = RunFolder(folder, CheckpointInfo("nano", classes, 8, 8, training={"command": EVIL}))
    run.log({"step": 1, "epoch": 1.0, "loss": 2.0, "miou": None})
    worst = WorstPictures(2)
    worst(0, torch.zeros(3, 8, 8), np.zeros((16, 16), np.uint8), np.ones((16, 16), np.uint8))
    counts = np.array([[3, 1], [0, 4]])
    write_page(run, Evaluation(counts, counts, 1), worst, lambda number: EVIL, EVIL)
    page = (folder / "report.html").read_text("utf-8")
    assert "<script" not in page and "<b>" not in page
    assert page.count("&lt;script") >= 4
    sources = re.findall(r'(?:src|href)="([^"]{9})', page)
    assert len(sources) == 3 and all(source.startswith("data:imag") for source in sources)
    assert "0.775" in page  # of 3/4 and 4/5
    write_page(run, None, WorstPictures(2), lambda number: EVIL, EVIL)
    alone = (folder / "report.html").read_text("utf-8")
    assert "Curves" in alone and "Worst" not in alone
    assert "mIoU 0.000" in page


def test_the_worst_pictures_are_kept_and_unlabelled_ones_passed_over() -> None:
    worst, image = WorstPictures(2), torch.zeros(3, 1, 100)
    for number in range(WORST + 4):
        label = np.zeros((1, 100), np.uint8)
        guess = label.copy()
        guess[0, : 1 + number] = 1
        worst(number, image, label if number != 7 else label + 255, guess)
    numbers = [number for number in range(WORST + 4) if number != 7]
    assert sorted(kept[1] for kept in worst.kept) == numbers[-WORST:]


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is() -> None:
    classes = (ClassInfo("a $_$ b", (0, 0, 0)), ClassInfo("$x$", (1, 2, 3)))
    drawn = io.BytesIO()
    draw_confusion(np.eye(2), classes, drawn)
    assert drawn.getvalue().startswith(b"\x89PNG")
