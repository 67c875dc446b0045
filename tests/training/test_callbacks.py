import sys
from pathlib import Path

import pytest
from fastseg_training.callbacks import TensorBoard, scalars


def test_numbers_of_classes_get_names_of_their_own_and_absent_ones_none() -> None:
    entry = {"step": 5, "miou": 0.5, "iou": {"Sky": 0.5, "Pole": None}, "val_loss": None}
    assert scalars(entry) == {"step": 5, "miou": 0.5, "iou/Sky": 0.5}


def test_numbers_reach_tensorboard_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    for step, loss in ((50, 2.0), (100, 1.5)):
        board.on_log({"step": step, "loss": loss, "iou": {"Sky": 0.5}})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(50, 2), (100, 1.5)]
    assert [event.step for event in events.Scalars("iou/Sky")] == [50, 100]


def test_a_tensorboard_that_is_broken_is_named_once_and_a_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard.py").write_text("raise TypeError('Descriptors of old\\nLong text')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    board = TensorBoard(tmp_path)
    for step in (50, 100):
        board.on_log({"step": step, "loss": 2.0})
    assert capsys.readouterr().err == (
        "no TensorBoard: it is installed and fails with TypeError: Descriptors of old\n"
    )
