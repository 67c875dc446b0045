"""The pages in docs/platforms: what they tell the reader to type exists."""

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import fastseg_runtime
import pytest
import typer
from fastseg_exporters import cli
from fastseg_runtime import masks
from fastseg_runtime.cli.main import make_parser
from fastseg_runtime.frames.session import RealtimeSegmentation
from fastseg_targets.target import select_targets

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/platforms"
PAGES = {page.stem: page.read_text("utf-8") for page in sorted(FOLDER.glob("*.md"))}
each_page = pytest.mark.parametrize("page", PAGES)


def commands(page: str, program: str) -> Iterator[list[str]]:
    """The arguments of each use of a program in the indented blocks of a page."""
    text = PAGES[page].replace("\\", "/")  # of Windows' paths
    for line in re.findall(rf"^    (?:[\w/]+/)?{program} (.+)$", text, re.MULTILINE):
        yield shlex.split(line.partition(" > ")[0])


def python_of(page: str) -> list[ast.Module]:
    """The syntax trees of a page's Python, which must be that of Python 3.8."""
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    return [ast.parse(block, page, feature_version=(3, 8)) for block in blocks]


def test_there_is_a_page_for_each_platform() -> None:
    platforms = {"jetson", "raspberry-pi", "android", "ios", "linux", "macos", "windows", "cpp"}
    assert set(PAGES) == platforms | {"deepstream", "ros2", "web"}


@each_page
def test_a_page_says_what_was_not_tried_and_lists_traps(page: str) -> None:
    assert re.search(r"[Nn]ot(hing here has)? (been |tried|run)", PAGES[page])
    assert PAGES[page].count("\n- **", PAGES[page].index("## Traps")) >= 5


@each_page
def test_every_fastseg_run_on_a_page_is_one_that_its_parser_takes(page: str) -> None:
    found = list(commands(page, "fastseg-run"))
    assert found
    for arguments in found:
        options = make_parser().parse_intermixed_args(arguments)
        assert options.model == "street.fastseg"
        if options.extract:
            assert select_targets([options.extract])


@each_page
def test_every_fastseg_export_on_a_page_has_options_and_targets_that_exist(page: str) -> None:
    parameters = typer.main.get_command(cli.app).params
    known = {option for parameter in parameters for option in parameter.opts}
    found = list(commands(page, "fastseg-export"))
    assert found
    for arguments in found:
        assert {word for word in arguments if word.startswith("-")} <= known
        names = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--target"]
        assert len(select_targets(names)) == len(names) > 0
        assert arguments[-2:] == ["-o", "street.fastseg"]


@each_page
def test_what_is_extracted_on_a_page_was_exported_on_it(page: str) -> None:
    exported = {word for arguments in commands(page, "fastseg-export") for word in arguments}
    for arguments in commands(page, "fastseg-run"):
        target = make_parser().parse_intermixed_args(arguments).extract
        assert target is None or target in exported


@each_page
def test_targets_in_the_text_exist(page: str) -> None:
    families = "android|ios|jetson|raspberrypi|cpu"
    names = set(re.findall(rf"\b(?:{families})-(?:fp|int|palettized)\w*\b", PAGES[page]))
    assert len(select_targets(sorted(names))) == len(names) > 0


@each_page
def test_the_wheel_and_the_extras_on_a_page_are_those_of_the_runtime(page: str) -> None:
    project = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text("utf-8"))["project"]
    wheels = re.findall(r"fastseg_runtime-([\d.]+)-py3-none-any\.whl(?:\[([\w,]+)\])?", PAGES[page])
    assert wheels or page in ("android", "ios", "cpp", "deepstream", "web")
    for version, extras in wheels:
        assert version == project["version"]
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


@each_page
def test_python_on_a_page_uses_names_and_arguments_that_exist(page: str) -> None:
    for tree in python_of(page):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "fastseg_runtime":
                known = {*fastseg_runtime.__all__, "masks"}
                assert {alias.name for alias in node.names} <= known
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                homes = {"seg": RealtimeSegmentation, "masks": masks}
                home = homes.get(node.value.id)
                assert home is None or hasattr(home, node.attr) or node.attr in ("input", "classes")
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "RealtimeSegmentation"
            ):
                accepted = inspect.signature(RealtimeSegmentation).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(accepted)


@each_page
def test_links_on_a_page_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert (FOLDER / target).is_file(), target


def test_the_phones_pages_name_the_files_and_tensors_that_the_exporters_write() -> None:
    source = ROOT / "exporters/fastseg_exporters"
    for page, exporter in (("android", "tflite/to_tflite"), ("ios", "coreml/to_coreml")):
        found = re.search(r'^ENTRY = "(.+)"', (source / f"{exporter}.py").read_text("utf-8"), re.M)
        assert found and found.group(1) in PAGES[page]
    assert "`image`" in PAGES["ios"] and "`classes`" in PAGES["ios"]
