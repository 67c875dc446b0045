from pathlib import Path

import pytest
from fastseg_training.class_map import read_class_map, same_classes
from fastseg_training.config import ConfigError

from fastseg.data.camvid import CLASSES as CAMVID

OURS = ("road", "house", "animal")


def written(folder: Path, text: str) -> str:
    path = folder / "map.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_each_class_of_the_teacher_goes_where_the_file_says(tmp_path: Path) -> None:
    text = 'teacher = ["wall", "street", "building", "own car"]\n[classes]\nroad = ["street"]\n'
    found = read_class_map(written(tmp_path, text + 'house = ["building", "wall"]\n'), OURS)
    assert found.target_C == (1, 0, 1, -1)
    assert found.taught == (0, 1)
    assert found.partly_taught == (0, 1)


def test_what_a_map_leaves_out_is_said(tmp_path: Path) -> None:
    text = 'teacher = ["street", "own car"]\n[classes]\nroad = ["street"]\nanimal = []\n'
    told = " ".join(read_class_map(written(tmp_path, text), OURS).gaps())
    assert "the teacher does not know: house, animal" in told
    assert "not taught: own car" in told


def test_a_teacher_of_the_same_classes_leaves_nothing_out() -> None:
    found = same_classes(OURS)
    assert found.target_C == (0, 1, 2)
    assert found.partly_taught == () and found.gaps() == []


@pytest.mark.parametrize("name", ["cityscapes-to-camvid", "cityscapes-to-camvid.toml"])
def test_the_map_that_ships_covers_all_of_cityscapes_and_camvid(name: str) -> None:
    found = read_class_map(name, [entry.name for entry in CAMVID])
    assert found.gaps() == []
    groups = {
        ours: {theirs for theirs, to in zip(found.teacher, found.target_C, strict=True) if to == k}
        for k, ours in enumerate(found.classes)
    }
    assert groups["Car"] == {"car", "truck", "bus", "train"}
    assert groups["Bicyclist"] == {"rider", "bicycle", "motorcycle"}
    assert found.teacher[:3] == ("road", "sidewalk", "building") and len(found.teacher) == 19


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher = [", "cannot read the teacher map"),
        ('teacher = ["a"]', "missing keys ['classes']"),
        ('teacher = ["a"]\nspeed = 1\n[classes]\nroad = ["a"]', "unknown keys ['speed']"),
        ('teacher = "a"\n[classes]\nroad = ["a"]', "teacher: expected list, got 'a'"),
        ('teacher = ["a", 1]\n[classes]\nroad = ["a"]', "teacher[1]: expected str, got 1"),
        ('teacher = [""]\n[classes]\nroad = []', "teacher has a name without letters"),
        ('teacher = ["a", "a"]\n[classes]\nroad = ["a"]', "names a more than once"),
        ('teacher = ["a"]\nclasses = 3', "classes: expected a table, got 3"),
        ('teacher = ["a"]\n[classes]\nstreet = ["a"]', "maps to street; the classes of the data"),
        ('teacher = ["a"]\n[classes]\nroad = ["b"]', "road names b, no class of the teacher"),
        ('teacher = ["a"]\n[classes]\nroad = "a"', "classes.road: expected list, got 'a'"),
        ('teacher = ["a"]\n[classes]\nroad = ["a", "a"]', "road names a more than once"),
        ('teacher = ["a"]\n[classes]\nroad = ["a"]\nhouse = ["a"]', "to road and to house"),
        ('teacher = ["a"]\n[classes]\nroad = []', "maps no class of the teacher"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_class_map(written(tmp_path, text), OURS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_map_is_answered_with_those_that_ship() -> None:
    with pytest.raises(ConfigError, match="no teacher map mars; .* cityscapes-to-camvid"):
        read_class_map("mars", OURS)


def test_255_classes_of_a_teacher_are_taken_and_256_are_not(tmp_path: Path) -> None:
    def text(count: int) -> str:
        names = ", ".join(f'"c{index}"' for index in range(count))
        return f'teacher = [{names}]\n[classes]\nroad = ["c0"]\n'

    assert len(read_class_map(written(tmp_path, text(255)), OURS).teacher) == 255
    with pytest.raises(ConfigError, match="names 256 classes; at most 255"):
        read_class_map(written(tmp_path, text(256)), OURS)


@pytest.mark.parametrize(("size", "fits"), [(100_000, True), (100_001, False)])
def test_a_file_that_is_too_large_for_names_is_not_read(
    size: int, fits: bool, tmp_path: Path
) -> None:
    text = 'teacher = ["street"]\n[classes]\nroad = ["street"]\n#'
    path = written(tmp_path, text + "x" * (size - len(text)))
    if fits:
        assert read_class_map(path, OURS).target_C == (0,)
    else:
        with pytest.raises(ConfigError, match="larger than 100000 bytes"):
            read_class_map(path, OURS)
