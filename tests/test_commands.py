"""What all commands have in common: help that teaches, one line for an error, a trace for a bug."""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from fastseg_runtime.arrays.image import encode_rgb

from tests.doubles.tiny_bundle import full_plan, noise

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    name: target.split(":")[0]
    for folder in (".", "runtime")
    for name, target in tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]["scripts"].items()
}
DATA = "synthetic:size=96x64,train=4,val=2,test=2"
# Command -> arguments that reach this function, in which something goes wrong.
INSIDE = {
    "fastseg-train": (["--data", DATA], "fastseg_training.cli.build_trainer"),
    "fastseg-export": (["nano-synthetic"], "fastseg_exporters.cli.export_bundle"),
    "fastseg-run": (
        ["tiny.fastseg", "a.png"],
        "fastseg_runtime.cli.run_inputs.open_session",
    ),
    "remote_bench": (["localhost"], "remote_bench.cli.bench.on_hosts"),
    "compare_models": (["nano"], "compare_models.cli.carry_out"),
    "fastseg-web": (["tiny.fastseg"], "fastseg_web.cli.choose_artifact"),
}
COMMON = {0, 1, 2, 129, 130, 143}
End = tuple[int, str, str]
each_command = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., End]:
    """Runs a command in a folder of its own; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> End:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            import_module(SCRIPTS[name]).main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def codes_in(text: str) -> set[int]:
    """The exit codes that a command's help explains."""
    explained = " ".join(text.rpartition("Exit codes: ")[2].split())
    return {int(code) for code in re.findall(r"(?:^|; )(\d+) \w+", explained)}


@each_command
def test_help_teaches_by_an_example_and_explains_the_exit_codes(
    name: str, call: Callable[..., End]
) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert re.search(rf"^ +{name} \S+ \S", out, re.MULTILINE), "an example"
    assert codes_in(out) >= COMMON
    assert "--json" in out and "--version" in out


@each_command
def test_the_version_is_printed(name: str, call: Callable[..., End]) -> None:
    code, out, err = call(name, "--version")
    assert (code, err) == (0, "")
    assert re.search(r"\d+\.\d+\.\d+", out)


@each_command
def test_an_unknown_option_is_one_line_and_code_2(name: str, call: Callable[..., End]) -> None:
    code, out, err = call(name, "--no-such-option")
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"{name}: .*--no-such-option.*; see {name} --help\n", err)


@each_command
@pytest.mark.parametrize("bug", [RuntimeError, ValueError, KeyError, TypeError, AssertionError])
def test_a_bug_of_ours_shows_its_trace(
    name: str, bug: type[Exception], call: Callable[..., End], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(bug, match="ours"):  # Python shows the trace of what is not caught
        fail_inside(name, bug("ours"), call, monkeypatch)


@each_command
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "x"), 1, "[Errno 28] No space left on device: 'x'"),
        (ImportError("pip install 'fastseg-edge[onnx]'"), 1, "pip install 'fastseg-edge[onnx]'"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_can_mend_is_one_line_without_a_trace(
    name: str,
    error: BaseException,
    code: int,
    said: str,
    call: Callable[..., End],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got, out, err = fail_inside(name, error, call, monkeypatch)
    assert (got, out) == (code, "")
    assert err.splitlines()[-1] == f"{name}: {said}"
    assert "Traceback" not in err


def fail_inside(
    name: str, error: BaseException, call: Callable[..., End], monkeypatch: pytest.MonkeyPatch
) -> End:
    """The end of a command in which something goes wrong once it works."""
    full_plan().write(Path("tiny.fastseg"))
    Path("a.png").write_bytes(encode_rgb(noise()))

    def fail(*_: object, **__: object) -> None:
        raise error

    arguments, function = INSIDE[name]
    monkeypatch.setattr(function, fail)
    return call(name, *arguments)


def test_pages_name_exit_codes_that_a_command_has(call: Callable[..., End]) -> None:
    known = {code for name in SCRIPTS for code in codes_in(call(name, "--help")[1])}
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for named in re.findall(
            r"\b(?:exit|code|exits with)(?: code)? (\d+)\b", page.read_text("utf-8")
        ):
            assert int(named) in known, page.name


def test_the_page_of_the_runtime_lists_its_exit_codes(call: Callable[..., End]) -> None:
    page = (ROOT / "docs/runtime.md").read_text("utf-8")
    listed = re.search(r"Exit codes: (.*?)\. ", " ".join(page.split()))
    assert listed
    codes = {int(code) for code in re.findall(r"(?:^|[,;] )(\d+)\b", listed.group(1))}
    assert codes == codes_in(call("fastseg-run", "--help")[1])
