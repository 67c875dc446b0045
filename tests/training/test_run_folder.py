import dataclasses
import multiprocessing
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from fastseg_runtime.arrays.shared_files import locked
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_training.run_folder import LOCK, RunError, RunFolder, held
from fastseg_training.trainer import SegmentationTrainer

from fastseg import FastSegNet, load_checkpoint


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Makes writes beyond 64 kB of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def allow_writes() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_state_comes_back(run: RunFolder) -> None:
    run.save_state({"step": 3, "model": {"a": torch.arange(3)}})
    state = run.load_state()
    assert state is not None and state["step"] == 3
    assert torch.equal(state["model"]["a"], torch.arange(3))


def test_a_state_of_other_classes_or_another_order_is_refused(run: RunFolder) -> None:
    run.save_state({"step": 1})
    for names in (("disc", "ground", "bar"), ("ground", "disc"), ("ground", "disc", "pole")):
        classes = tuple(ClassInfo(name, (0, 0, 0)) for name in names)
        other = RunFolder(run.path, dataclasses.replace(run.info, classes=classes))
        said = f"learnt the classes ground, disc, bar, .*now they are {', '.join(names)}"
        with pytest.raises(RunError, match=said):
            other.load_state()


def test_a_state_of_before_classes_were_kept_goes_on(run: RunFolder) -> None:
    torch.save({"step": 1}, run.resume_path)
    assert run.load_state() == {"step": 1}


def test_a_full_disk_keeps_the_last_good_state(run: RunFolder, small_disk: None) -> None:
    run.save_state({"step": 1})
    with pytest.raises(RunError, match=r"(?s)cannot write .*resume\.pt.*--resume"):
        run.save_state({"step": 2, "model": torch.zeros(1 << 18)})
    allow_writes()
    assert run.load_state() == {"step": 1}
    assert [path.name for path in run.path.iterdir()] == ["resume.pt"]


def test_a_full_disk_keeps_the_last_good_model(run: RunFolder) -> None:
    torch.manual_seed(0)
    model = FastSegNet(3, "nano")
    run.save_model(model, {"step": 1}, run.model_path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(RunError, match=r"(?s)cannot write .*model\.safetensors.*--resume"):
            run.save_model(model, {"step": 2}, run.model_path)
    finally:
        allow_writes()
    assert load_checkpoint(run.model_path)[1].training["step"] == 1
    assert [path.name for path in run.path.iterdir()] == ["model.safetensors"]


def test_a_state_that_would_run_code_is_refused(run: RunFolder) -> None:
    torch.save({"step": Path("x")}, run.resume_path)
    with pytest.raises(RunError, match="is damaged; start anew with --force"):
        run.load_state()


def test_a_truncated_state_is_refused(run: RunFolder) -> None:
    run.save_state({"step": 1})
    run.resume_path.write_bytes(run.resume_path.read_bytes()[:-20])
    with pytest.raises(RunError, match="is damaged"):
        run.load_state()


def test_a_line_that_a_kill_cut_short_is_left_out(run: RunFolder) -> None:
    run.log({"step": 1, "loss": 2.0})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1, "loss": 2.0}]
    run.forget_after(5)
    run.log({"step": 3})
    assert [entry["step"] for entry in run.metrics()] == [1, 3]


def test_a_folder_that_is_not_there_is_made_by_the_first_line(run: RunFolder) -> None:
    shutil.rmtree(run.path)
    run.log({"step": 50})
    assert run.metrics() == [{"step": 50}]


def test_lines_after_the_resumed_step_are_forgotten(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.log({"step": step})
    run.forget_after(2)
    assert [entry["step"] for entry in run.metrics()] == [1, 2]


def test_a_disk_without_locks_is_no_reason_not_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fastseg_training.run_folder.locked", refuse)
    with held(tmp_path):
        pass
    assert "cannot be locked" in capsys.readouterr().err


def test_a_trainer_leaves_a_folder_alone_that_another_training_writes_to(
    make_trainer: Callable[..., SegmentationTrainer], run: RunFolder
) -> None:
    trainer = make_trainer(run, steps=1)
    run.path.mkdir(exist_ok=True)
    with locked(run.path / LOCK, pytest.fail):
        for begin in (trainer.resume, trainer.train):
            with pytest.raises(RunError, match="another training is writing"):
                begin()
    assert [path.name for path in run.path.iterdir()] == [LOCK]
    trainer.train()


def test_who_holds_a_folder_may_hold_it_again_and_then_nobody_does(tmp_path: Path) -> None:
    with held(tmp_path), held(tmp_path):
        pass
    with locked(tmp_path / LOCK, pytest.fail):
        pass


def enter(folder: Path) -> None:
    with held(folder):
        pass


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_another_thread_or_a_forked_child_does_not_enter_a_folder_that_is_held(
    tmp_path: Path,
) -> None:
    forked = multiprocessing.get_context("fork")
    with held(tmp_path):
        for executor in (ThreadPoolExecutor(1), ProcessPoolExecutor(1, forked)):
            with executor, pytest.raises(RunError, match="another training is writing"):
                executor.submit(enter, tmp_path).result()
