from __future__ import annotations

from pathlib import Path

import pytest
from fastseg_runtime.bundle.manifest import ClassInfo
from hypothesis import given
from hypothesis import strategies as st

from fastseg.data import DataError
from fastseg.data.class_list import class_mismatch, generated_color, read_classes


def _classes(folder: Path, text: str) -> Path:
    path = folder / "classes.txt"
    path.write_text(text, "utf-8")
    return path


def test_lines_give_value_name_and_colour(tmp_path: Path) -> None:
    text = "# comment\n7 road 128 64 128\n\n21 traffic light 250 170 30  # two words\n"
    classes, codec = read_classes(_classes(tmp_path, text))
    assert [(info.name, info.color) for info in classes] == [
        ("road", (128, 64, 128)),
        ("traffic light", (250, 170, 30)),
    ]
    assert codec.ids == {7: 0, 21: 1, 255: 255}
    assert codec.colors == {(128, 64, 128): 0, (250, 170, 30): 1}


def test_void_is_ignored_and_no_class(tmp_path: Path) -> None:
    classes, codec = read_classes(_classes(tmp_path, "0 Road 9 9 9\n1 Void 0 0 0\n2 Sky 1 2 3\n"))
    assert [info.name for info in classes] == ["Road", "Sky"]
    assert codec.ids == {0: 0, 1: 255, 2: 1, 255: 255}
    assert codec.colors[(0, 0, 0)] == 255


def test_colours_and_numbered_header_words_are_classes(tmp_path: Path) -> None:
    for text, first in (("red\nblue\n", "red"), ("0 class\n1 other\n", "class")):
        assert read_classes(_classes(tmp_path, text))[0][0].name == first


def test_labelme_s_list_is_numbered_as_labelme_numbers_it(tmp_path: Path) -> None:
    text = "__ignore__\n_background_\ncar\nroad\n"
    classes, codec = read_classes(_classes(tmp_path, text))
    assert [info.name for info in classes] == ["_background_", "car", "road"]
    assert codec.ids == {0: 0, 1: 1, 2: 2, 255: 255}
    _, numbered = read_classes(_classes(tmp_path, "0 __ignore__\n1 car\n2 road\n"))
    assert numbered.ids == {0: 255, 1: 0, 2: 1, 255: 255}
    _, void = read_classes(_classes(tmp_path, "void\ncar\nroad\n"))
    assert void.ids == numbered.ids


def test_plain_names_are_numbered_and_get_colours(tmp_path: Path) -> None:
    classes, codec = read_classes(_classes(tmp_path, "background\nliver\n"))
    assert [info.name for info in classes] == ["background", "liver"]
    assert codec.ids == {0: 0, 1: 1, 255: 255}
    assert classes[0].color != classes[1].color


def test_generated_colours_are_those_of_pascal_voc() -> None:
    colors = [generated_color(index) for index in range(7)]
    assert colors[:3] == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert colors[6] == (128, 128, 128)  # differs from (64, 0, 0) of number 8
    assert len({generated_color(index) for index in range(255)}) == 255


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 classes"),
        ("0 Void 0 0 0\n", "0 classes"),
        ("0 a 1 1 1\n0 b 2 2 2\n", "two classes have the index 0"),
        ("0 a 1 1 1\n1 b 1 1 1\n", "two classes have the colour"),
        ("0 a 1 1 1\n1 a 2 2 2\n", "two classes have the name a"),
        ("name\nroad\ncar\n", "'name', is a header or a class; take it out, or write '0 name'"),
        ("Class\nroad\ncar\n", "'Class', is a header or a class"),
        ("0 a 1 1 300\n", "cannot read the line .*: a number is above 255; expected"),
        ("0 a\n1000 b\n", "if masks store it, they have values of 16 bits: renumber them to 0 to"),
        ("0 a 1 1 1\nb 2 2 2\n", "cannot read the line"),
        ("0\n1\n", "cannot read the line"),
        ("256 a 1 1 1\n", "cannot read the line"),
        ("a\nb\x1bm\n", "the class 'b.x1bm' has 3 characters"),
        (f"a\n{'b' * 201}\n", "has 201 characters; expected a name of 1 to 200"),
    ],
)
def test_lists_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"classes\.txt: .*{message}"):
        read_classes(_classes(tmp_path, text))


def test_a_missing_list_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected lines 'index name R G B'"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("given", "is_other_order"),
    [
        ("Background Car Road", True),
        ("background car road", True),
        ("Background Road Car", False),
        ("background street Car", False),
    ],
)
def test_the_order_of_classes_is_compared_whatever_their_capital_letters(
    given: str, is_other_order: bool
) -> None:
    assert bool(class_mismatch(_infos("background road car"), "D", _infos(given))) == is_other_order


def test_names_that_capital_letters_alone_tell_apart_are_compared_by_them() -> None:
    known = _infos("background a A")
    assert not class_mismatch(known, "D", known)
    assert not class_mismatch(_infos("background a b"), "D", known)
    assert "another order" in class_mismatch(known, "D", _infos("background A a"))


def _infos(names: str) -> list[ClassInfo]:
    return [ClassInfo(name, (0, 0, 0)) for name in names.split()]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "classes.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        classes, codec = read_classes(path)
    except DataError:
        return
    assert set(codec.ids.values()) == {*range(len(classes)), 255}
