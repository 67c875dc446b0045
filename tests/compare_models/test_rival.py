"""How a network of others is used: size, classes and normalisation, by its file or its TOML."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from compare_models.rival import read_rival, source_of
from fastseg_runtime.bundle.manifest import METADATA_KEY, ClassInfo, numbered_classes
from fastseg_runtime.engines.backend_pytorch import manifest_of
from torch import nn

from fastseg import CheckpointError, CheckpointInfo, open_network, save_checkpoint
from fastseg.data import open_dataset
from tests.compare_models.conftest import DATA, MAP, save_nano
from tests.doubles.own_onnx import own_onnx


def test_a_rival_says_threshold_and_fit_and_takes_weights_that_ship(
    rival: str, tmp_path: Path
) -> None:
    lines = [f'network = "{rival}"', 'fit = "letterbox"', "threshold = 0.3"]
    (tmp_path / "t.toml").write_text("\n".join([*lines, 'weights = "nano-synthetic"']))
    source, _ = source_of(str(tmp_path / "t.toml"), open_dataset(DATA, "test"))
    assert (source.fit, source.threshold, source.weights) == ("letterbox", 0.3, "nano-synthetic")


def test_a_rival_says_how_it_is_used(rival_file: str) -> None:
    samples = open_dataset(DATA, "test")
    source, lookup_256 = source_of(rival_file, samples)
    assert (source.size, source.output_name, len(source.classes or ())) == ((64, 32), "0", 4)
    names = [c.name for c in samples.classes]
    assert lookup_256 is not None
    expected = [len(names), names.index("Sky"), names.index("Sky"), names.index("Road")]
    assert lookup_256[:4].tolist() == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("network = 3", "network"),
        ('weights = "a"', "network"),
        ('x = "y"', "x"),
        ("[", "theirs.toml does not say"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs.toml").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_rival(str(tmp_path / "theirs.toml"))
    with pytest.raises(ValueError, match="cannot read absent.toml: No such file"):
        read_rival("absent.toml")


def write_named_onnx(path: Path, classes: tuple[ClassInfo, ...]) -> str:
    """Write an ONNX file that takes bytes and says that it knows these classes."""
    manifest = replace(manifest_of(open_network("nano-synthetic")), classes=classes)
    model = own_onnx(picture="uint8", size=("h", "w"))
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("kind", ["onnx", "weights"])
def test_networks_of_any_kind_that_name_their_classes_are_scored_by_the_names(
    kind: str, rival: str, tmp_path: Path
) -> None:
    samples = open_dataset(DATA, "test")
    turned = samples.classes[::-1]
    if kind == "onnx":
        spec = write_named_onnx(tmp_path / "turned.onnx", turned)
    else:
        save_checkpoint(
            tmp_path / "turned.safetensors", tiny(rival, turned), CheckpointInfo(rival, turned)
        )
        spec = str(tmp_path / "turned.toml")
        Path(spec).write_text(f'network = "{rival}"\nweights = "turned.safetensors"\n')
    source, lookup_256 = source_of(spec, samples)
    assert lookup_256 is None and source.classes is None
    assert source.open().info.classes == turned


def tiny(rival: str, classes: tuple[ClassInfo, ...]) -> nn.Module:
    return open_network(rival, classes, output_name="0").model


def test_files_that_number_their_classes_are_taken_for_the_datas(tmp_path: Path) -> None:
    samples = open_dataset(DATA, "test")
    numbered = numbered_classes(len(samples.classes))
    for classes in (numbered, tuple(replace(entry, color=(0, 0, 9)) for entry in numbered)):
        spec = write_named_onnx(tmp_path / "n.onnx", classes)
        assert source_of(spec, samples)[0].classes == samples.classes


@pytest.mark.parametrize("kind", ["onnx", "checkpoint"])
def test_a_class_map_has_to_name_the_classes_that_the_file_names(kind: str, tmp_path: Path) -> None:
    samples, own = open_dataset(DATA, "test"), tmp_path / "own.toml"
    (tmp_path / "map.toml").write_text(MAP)
    right = tuple(ClassInfo(name, (0, 0, 0)) for name in ("grass", "sky", "cloud", "tarmac"))
    write = write_named_onnx if kind == "onnx" else save_nano
    name = "n.onnx" if kind == "onnx" else "n.safetensors"
    own.write_text(f'network = "{name}"\nclass_map = "map.toml"\n')
    write(tmp_path / name, right)
    assert source_of(str(own), samples)[1] is not None
    write(tmp_path / name, right[::-1])
    with pytest.raises(ValueError, match=r"knows tarmac, .*map.toml has grass, sky.*their order"):
        source_of(str(own), samples)


def test_a_float_file_is_told_how_to_say_its_normalisation(tmp_path: Path) -> None:
    onnx.save(own_onnx(), tmp_path / "f.onnx")
    samples, own = open_dataset(DATA, "test"), tmp_path / "own.toml"
    with pytest.raises(ValueError, match=r'name a .toml with network = ".*f.onnx" and normaliz'):
        source_of(str(tmp_path / "f.onnx"), samples)
    own.write_text('network = "f.onnx"\nnormalization = "imagenet"\n')
    assert source_of(str(own), samples)[0].normalization is not None
    with pytest.raises(CheckpointError, match="no ONNX file absent.onnx"):
        source_of("absent.onnx", samples)[0].open()


@pytest.mark.parametrize(
    ("sides", "taken"), [((32, 48), (48, 32)), ((32, "w"), (96, 32)), (("h", "w"), (96, 64))]
)
def test_a_file_that_fixes_its_size_is_taken_at_that_and_open_sides_at_the_datas(
    sides: tuple[int | str, int | str], taken: tuple[int, int], tmp_path: Path
) -> None:
    onnx.save(own_onnx(picture="uint8", size=sides), tmp_path / "f.onnx")
    source, _ = source_of(str(tmp_path / "f.onnx"), open_dataset(DATA, "test"))
    assert source.size == taken


def test_a_file_of_bytes_is_told_which_key_says_a_normalisation(tmp_path: Path) -> None:
    onnx.save(own_onnx(picture="uint8"), tmp_path / "b.onnx")
    samples, own = open_dataset(DATA, "test"), tmp_path / "own.toml"
    own.write_text('network = "b.onnx"\nnormalization = "imagenet"\n')
    says = r'own.toml says normalization = "imagenet", .*b.onnx takes bytes as they are; leave that'
    with pytest.raises(ValueError, match=says):
        source_of(str(own), samples)
    for harmless in ('normalization = "centred"', 'color = "bgr"'):
        own.write_text(f'network = "b.onnx"\n{harmless}\n')
        assert source_of(str(own), samples)[0].normalization is not None
