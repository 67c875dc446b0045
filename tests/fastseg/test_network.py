import importlib
import sys
from pathlib import Path

import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from torch import nn

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, open_network, save_checkpoint
from fastseg.data.dataset import DataError
from fastseg.data.own_dataset import open_own
from fastseg.network import hash_weights
from fastseg.normalization import NAMED

FACTORY = """
import warnings

import torch

def small_net(num_classes):
    return torch.nn.Conv2d(3, num_classes, 3, padding=1)

def lazy():
    return torch.nn.LazyConv2d(2, 1)

def empty():
    return torch.nn.Conv2d(3, 2, 1, device="meta")

def no_net():
    return 7

def compiled(num_classes):
    return torch.compile(small_net(num_classes))

def sparse(num_classes):
    net = small_net(num_classes)
    net.register_buffer("mix", torch.eye(num_classes).to_sparse())
    return net

def scripted(num_classes):
    with warnings.catch_warnings(action="ignore"):  # that it is deprecated
        return torch.jit.script(small_net(num_classes))

def fixed():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 2, 1)

def needs_more(depth, num_classes):
    return None

def leaves(num_classes):
    raise SystemExit(3)

def misspelt(num_classes):
    return {"depth": 3}["depht"]

an_instance = small_net(2)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_factory_of_the_current_folder_gives_a_network_with_its_weights(project: Path) -> None:
    weights = nn.Conv2d(3, 4, 3).state_dict()
    torch.save(weights, project / "w.pth")
    network = open_network(
        "their_nets:small_net", numbered_classes(4), project / "w.pth", size=(64, 48)
    )
    torch.testing.assert_close(network.model.state_dict()["weight"], weights["weight"])
    assert (network.info.width, network.info.height) == (64, 48)
    assert network.name == "small_net"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile()'s own imports
def test_a_compiled_network_is_the_one_that_was_compiled(project: Path) -> None:
    torch.save(nn.Conv2d(3, 2, 3).state_dict(), project / "w.pth")
    network = open_network("their_nets:compiled", numbered_classes(2), project / "w.pth")
    assert type(network.model) is nn.Conv2d


def test_sparse_tensors_are_part_of_a_networks_identity(project: Path) -> None:
    network = open_network("their_nets:sparse", numbered_classes(2))
    other = {**network.model.state_dict(), "mix": torch.zeros(2, 2).to_sparse()}
    assert network.sha256 != hash_weights(other)


def test_a_factory_without_classes_asks_for_them(project: Path) -> None:
    with pytest.raises(CheckpointError, match="--classes FILE"):
        open_network("their_nets:small_net")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("their_nets:absent", "cannot import their_nets:absent"),
        ("absent.module:f", "cannot import absent.module:f"),
        ("their_nets:no_net", "returned int, expected a torch.nn.Module"),
        ("their_nets:scripted", "is TorchScript, which .*; return the module it was made from"),
        ("their_nets:an_instance", "is a network and no factory; name a function that makes it"),
        ("their_nets:lazy", "lazy modules; call the network once in the factory"),
        ("their_nets:empty", "tensors without values, on the meta device"),
    ],
)
def test_a_factory_that_cannot_serve_is_refused(project: Path, spec: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_network(spec, numbered_classes(2))


def test_weights_beside_a_network_that_has_its_own_are_refused() -> None:
    with pytest.raises(CheckpointError, match="nano-synthetic holds its weights; leave --weights"):
        open_network("nano-synthetic", weights="nowhere.pth")


def test_weights_that_do_not_fit_are_refused(project: Path) -> None:
    torch.save(nn.Conv2d(3, 5, 3).state_dict(), project / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        open_network("their_nets:small_net", numbered_classes(4), project / "w.pth")


def test_a_run_is_named_after_its_folder_and_hashed_by_its_weights(tmp_path: Path) -> None:
    model = FastSegNet(2, "nano")
    info = CheckpointInfo("nano", numbered_classes(2))
    for run in ("street", "copy"):
        (tmp_path / run).mkdir()
        save_checkpoint(tmp_path / run / "model.safetensors", model, info)
    street, copy = (
        open_network(tmp_path / run / "model.safetensors") for run in ("street", "copy")
    )
    assert street.name == "street"
    assert street.sha256 == copy.sha256
    with torch.no_grad():
        model.head[1].bias.add_(1)
    save_checkpoint(tmp_path / "copy/model.safetensors", model, info)
    assert open_network(tmp_path / "copy/model.safetensors").sha256 != street.sha256


def test_what_is_no_tensor_in_a_state_is_hashed_too() -> None:
    class Extra(torch.nn.Conv2d):
        note: object = {"scale": 2}

        def get_extra_state(self) -> object:
            return self.note

    torch.manual_seed(0)
    layer = Extra(3, 2, 1)
    plain = hash_weights(layer.state_dict())
    assert plain == hash_weights(layer.state_dict())
    layer.note = {"scale": 3}
    assert plain != hash_weights(layer.state_dict())
    layer.note = object()  # which prints where it lies
    assert hash_weights(layer.state_dict()) == hash_weights(dict(layer.state_dict()))


def test_one_class_is_told_from_background_which_is_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    road = ClassInfo("road", (128, 64, 128))
    network = open_network("their_nets:small_net", (road,))
    assert [entry.name for entry in network.info.classes] == ["background", "road"]
    assert network.model.out_channels == 1
    assert "class 0 is 'background', 1 'road'" in capsys.readouterr().err
    assert network.logits(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).shape == (1, 2, 8, 8)


def test_two_classes_are_taken_as_they_are(project: Path) -> None:
    network = open_network("their_nets:small_net", numbered_classes(2))
    assert network.info.classes == numbered_classes(2)


def test_background_cannot_be_told_from_background(project: Path) -> None:
    with pytest.raises(CheckpointError, match="name what is to be told from it"):
        open_network("their_nets:small_net", (ClassInfo("Background", (0, 0, 0)),))


@pytest.mark.parametrize(("threshold", "fits"), [(0.0, False), (1e-6, True), (1.0, False)])
def test_a_threshold_is_a_probability(project: Path, threshold: float, fits: bool) -> None:
    if fits:
        assert open_network("their_nets:small_net", numbered_classes(2), threshold=threshold)
        return
    with pytest.raises(ValueError, match="more than 0, less than 1"):
        open_network("their_nets:small_net", numbered_classes(2), threshold=threshold)


def test_how_a_network_is_used_is_part_of_its_identity(project: Path) -> None:
    plain = open_network("their_nets:fixed", numbered_classes(2))
    others = [
        open_network("their_nets:fixed", numbered_classes(2), normalization=NAMED["unit"]),
        open_network("their_nets:fixed", numbered_classes(2), output_name="1"),
        open_network("their_nets:fixed", numbered_classes(2), threshold=0.4),
    ]
    assert len({network.sha256 for network in (plain, *others)}) == 4
    assert plain.sha256 == hash_weights(plain.model.state_dict())
    centred = open_network("their_nets:fixed", numbered_classes(2), normalization=NAMED["centred"])
    assert centred.sha256 == plain.sha256 and centred.info.normalization is None


def test_a_checkpoint_of_ours_is_not_told_what_it_takes(tmp_path: Path) -> None:
    model = FastSegNet(2, "nano")
    file = tmp_path / "net.safetensors"
    save_checkpoint(file, model, CheckpointInfo("nano", numbered_classes(2)))
    with pytest.raises(CheckpointError, match="was trained with R .x - 128. / 64"):
        open_network(file, normalization=NAMED["imagenet"])
    with pytest.raises(CheckpointError, match="no network of your own"):
        open_network(file, output_name="out")
    torch.save(model.state_dict(), tmp_path / "net.pth")  # says nothing of pictures
    network = open_network(tmp_path / "net.pth", normalization=NAMED["imagenet"])
    assert network.info.normalization == NAMED["imagenet"]
    save_checkpoint(file, network.model, network.info)
    assert open_network(file).info.normalization == NAMED["imagenet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs_more", r"TypeError: .*'depth' .*their_nets.py:\d+"),
        ("leaves", r"SystemExit: 3 \(.*their_nets.py:\d+\)"),
        ("misspelt", r"KeyError: 'depht' \(.*their_nets.py:\d+\)"),
    ],
)
def test_a_factory_that_fails_is_one_line_with_its_place(
    project: Path, name: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        open_network(f"their_nets:{name}", numbered_classes(2))
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported_is_one_line_with_its_place(project: Path) -> None:
    (project / "half_done.py").write_text("import not_to_be_had\n")
    (project / "unfinished.py").write_text("\n\ndef net(:\n")
    with pytest.raises(CheckpointError, match=r"ModuleNotFoundError.*half_done.py:1\)"):
        open_network("half_done:net", numbered_classes(2))
    with pytest.raises(CheckpointError, match=r"SyntaxError.*unfinished.py:3\)"):
        open_network("unfinished:net", numbered_classes(2))


def test_a_file_of_the_current_folder_takes_no_librarys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine_alone", "wave"):
        Path(f"{name}.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 2, 3)")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    open_network("mine_alone:net", numbered_classes(2), size=(64, 48))
    assert hasattr(importlib.import_module("wave"), "Wave_read")


def test_what_lies_beside_a_module_of_ones_own_is_its_own_whatever_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    Path("installed").mkdir()
    for name in ("utils_of_a_net", "utils_of_a_set", "net_of_two_places"):
        Path(f"installed/{name}.py").write_text("raise SystemExit('a stranger')")
    Path("utils_of_a_net.py").write_text("COUNT = 2")
    Path("utils_of_a_set.py").write_text("def samples(split): return [split]")
    Path("net_of_two_places.py").write_text(
        "import utils_of_a_net\n"
        "from torch import nn\n"
        "def net(): return nn.Conv2d(3, utils_of_a_net.COUNT, 3)"
    )
    Path("set_of_ones_own.py").write_text("from utils_of_a_set import samples")
    network = open_network("net_of_two_places:net", numbered_classes(2), size=(64, 48))
    assert network.info.variant == "net_of_two_places:net"
    with pytest.raises(DataError, match="its samples have classes = "):
        open_own("set_of_ones_own:samples", "train")
    assert sys.path[0] == str(tmp_path / "installed")
    assert sys.path[-1] == str(tmp_path)
