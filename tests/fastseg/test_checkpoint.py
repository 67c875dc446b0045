import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from safetensors.torch import load_file, save_file

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    FastSegNet,
    load_checkpoint,
    save_checkpoint,
)
from fastseg.checkpoint import read_state_dict

CLASSES = (ClassInfo("road", (128, 64, 128)), ClassInfo("sky", (70, 130, 180)))
INFO = CheckpointInfo(
    "nano", CLASSES, 96, 64, trained_on="synthetic train", data_licence="none", training={"seed": 1}
)


@pytest.fixture
def model() -> FastSegNet:
    torch.manual_seed(0)
    return FastSegNet(2, "nano").eval()


def test_a_checkpoint_comes_back_with_weights_and_description(
    model: FastSegNet, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.safetensors", model, INFO)
    loaded, info = load_checkpoint(tmp_path / "a.safetensors")
    image = torch.randn(1, 3, 64, 96)
    assert info == INFO
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), model(image))


def test_half_precision_halves_the_file_and_loads_as_float32(
    model: FastSegNet, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.safetensors", model, INFO)
    save_checkpoint(tmp_path / "h.safetensors", model, INFO, dtype=torch.float16)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in "ah"]
    assert sizes[1] < 0.6 * sizes[0]
    loaded, _ = load_checkpoint(tmp_path / "h.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("wrap", [False, True])
def test_a_plain_state_dict_tells_its_variant_and_class_count(
    model: FastSegNet, tmp_path: Path, wrap: bool
) -> None:
    weights = model.state_dict()
    torch.save({"model_state_dict": weights} if wrap else weights, tmp_path / "best_model.pth")
    loaded, info = load_checkpoint(tmp_path / "best_model.pth")
    assert (loaded.variant, [c.name for c in info.classes]) == ("nano", ["class_0", "class_1"])


def test_another_class_count_says_how_to_replace_the_head(
    model: FastSegNet, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.safetensors", model, INFO)
    with pytest.raises(CheckpointError, match="knows 2 classes, 19 were asked for.*--classes"):
        load_checkpoint(tmp_path / "a.safetensors", num_classes=19)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran while loading",))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="not a state dict that loads safely"):
        load_checkpoint(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x08\0\0\0\0\0\0\0{}"])
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="foreign"):
        load_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(model: FastSegNet, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, model, INFO)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(path)


def test_weights_under_a_key_of_ones_own_are_refused_with_that_key(
    model: FastSegNet, tmp_path: Path
) -> None:
    torch.save({"epoch": 3, "net": model.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w.pth: 2 entries are not tensors.*\['net'\]"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("layer.weight", (3,)), ("head.1.weight", ()), ("head.1.weight", (300, 8, 1, 1))],
)
def test_weights_of_another_network_point_to_the_factory_form(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    save_file({name: torch.zeros(shape)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="package.module:factory"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "classes: expected list, got None"),
        ({"classes": [{"name": "a", "color": [1, 2]}]}, r"classes\[0\]\.color: expected 3 values"),
        ({"width": "480"}, "width: expected int, got '480'"),
        ({"colour": "rgb"}, r"unknown keys \['colour'\]"),
        ({"usage": "free"}, "usage is 'free'; expected one of"),
        ({"normalization": {"mean": [0, 0, 0]}}, r"normalization: missing keys \['std', 'scale'\]"),
    ],
)
def test_a_broken_header_is_refused_by_the_place(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    header = {"fastseg": json.dumps({**dataclasses.asdict(INFO), **change})}
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors", header)
    with pytest.raises(CheckpointError, match=f"header cannot be read: {message}"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_a_write_that_fails_leaves_the_old_checkpoint(
    model: FastSegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, model, INFO)
    before = path.read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, model, INFO)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_tensors_that_layers_share_are_written_for_each(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(3, 3, 1)
    save_checkpoint(tmp_path / "a.safetensors", torch.nn.Sequential(layer, layer), INFO)
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert torch.equal(saved["1.weight"], layer.weight)


def test_auxiliary_heads_of_ones_own_network_are_written_too(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.auxiliary_heads = torch.nn.ModuleList([torch.nn.Conv2d(3, 2, 1)])
    save_checkpoint(tmp_path / "a.safetensors", model, INFO)
    model.load_state_dict(load_file(tmp_path / "a.safetensors"))


def test_a_network_that_holds_more_than_tensors_is_refused_in_a_line(tmp_path: Path) -> None:
    class Extra(torch.nn.Conv2d):
        def get_extra_state(self) -> object:
            return {"scale": 2}

    model = torch.nn.Sequential(Extra(3, 2, 1))
    with pytest.raises(CheckpointError, match=r"Sequential: 0\._extra_state .* is dict, .* buffer"):
        save_checkpoint(tmp_path / "a.safetensors", model, INFO)


def test_a_missing_checkpoint_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fastseg-train"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_old_code_that_loads_a_state_dict_into_the_network_still_works(
    model: FastSegNet, tmp_path: Path
) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pth")
    other = FastSegNet(num_classes=2, variant="nano")
    other.load_state_dict(torch.load(tmp_path / "model.pth"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_a_wrapped_network_are_those_of_the_network(tmp_path: Path, prefix: str) -> None:
    weights = {"a.weight": torch.ones(2), "module.weight": torch.zeros(2)}
    torch.save({f"{prefix}{name}": value for name, value in weights.items()}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == weights.keys()
    torch.save(weights, tmp_path / "w.pth")  # a part of a network may be called so
    assert read_state_dict(tmp_path / "w.pth").keys() == weights.keys()
