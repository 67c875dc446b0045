"""What colcon and ros2 find in the package: its files, what they need of each other and of ROS."""

import ast
import runpy
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.runtime.ros2.conftest import PACKAGE

ROOT = PACKAGE.parents[2]
CODE = sorted((PACKAGE / "fastseg_ros").glob("*.py"))
MANIFEST = ET.parse(PACKAGE / "package.xml").getroot()
RUNTIME = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text("utf-8"))["project"]
# Python modules -> the packages of ROS that bring them, where the names differ.
BROUGHT_BY = {"numpy": "python3-numpy", "cv2": "python3-opencv"}
NOT_OF_ROS = {"fastseg_runtime", "fastseg_ros", "ament_index_python", *sys.stdlib_module_names}


def imports_of(files: list[Path]) -> set[str]:
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.partition(".")[0] for module in modules}


def test_its_manifest_names_all_that_it_imports_and_no_more() -> None:
    assert MANIFEST.findtext("name") == "fastseg_ros"
    assert MANIFEST.findtext("version") == RUNTIME["version"]
    assert MANIFEST.findtext("license") == RUNTIME["license"]
    assert MANIFEST.findtext("export/build_type") == "ament_python"
    needed = imports_of([*CODE, *PACKAGE.glob("launch/*.py")]) - NOT_OF_ROS
    assert {str(e.text) for e in MANIFEST.iter("exec_depend")} == {
        BROUGHT_BY.get(name, name) for name in needed
    }


def test_the_code_is_python_3_8_and_takes_the_runtimes_public_names_alone() -> None:
    for file in [*CODE, *PACKAGE.glob("launch/*.py")]:
        tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 8))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastseg_runtime"):
                assert node.module == "fastseg_runtime"
                assert [alias.name for alias in node.names] == ["RealtimeSegmentation"]


def test_nothing_else_imports_it() -> None:
    folders = ("fastseg", "targets", "exporters", "training", "tools", "runtime/fastseg_runtime")
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        assert "fastseg_ros" not in file.read_text("utf-8"), file


def test_the_file_of_parameters_has_each_with_its_default(segmenter: Any) -> None:
    declared = {**segmenter.AT_ANY_TIME, **segmenter.BEFORE_CONFIGURING}
    lines = (PACKAGE / "config/segmenter.yaml").read_text("utf-8").splitlines()
    assert [line for line in lines if line[0] not in "# "] == ["/**: # in whatever namespace"]
    rows = [line.strip() for line in lines if line.startswith("    ") and "#" not in line]
    pairs = dict(row.split(": ") for row in rows)
    assert list(pairs) == list(declared)
    for name, (value, descriptor) in declared.items():
        # To rclpy a whole number is no double.
        assert name == "bundle" or pairs[name].strip('"') == str(value)
        assert descriptor.description


def stand_in(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


def recorded(kind: str) -> Any:
    """Return a constructor that keeps what it is given."""
    return lambda *arguments, **options: SimpleNamespace(kind=kind, args=arguments, **options)


def test_the_launch_file_configures_the_node_and_then_activates_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actions = ("DeclareLaunchArgument", "EmitEvent", "RegisterEventHandler")
    share = SimpleNamespace(TRANSITION_CONFIGURE=1, TRANSITION_ACTIVATE=3)
    for module in (
        stand_in("ament_index_python"),
        stand_in("ament_index_python.packages", get_package_share_directory=lambda n: str(PACKAGE)),
        stand_in("launch", LaunchDescription=recorded("description")),
        stand_in("launch.actions", **{name: recorded(name) for name in actions}),
        stand_in("launch.events", matches_action=lambda node: node),
        stand_in("launch.substitutions", LaunchConfiguration=lambda name: f"<{name}>"),
        stand_in("launch_ros"),
        stand_in("launch_ros.actions", LifecycleNode=recorded("node")),
        stand_in("launch_ros.event_handlers", OnStateTransition=recorded("transition")),
        stand_in("launch_ros.events"),
        stand_in("launch_ros.events.lifecycle", ChangeState=recorded("change")),
        stand_in("lifecycle_msgs"),
        stand_in("lifecycle_msgs.msg", Transition=share),
    ):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    made = runpy.run_path(str(PACKAGE / "launch/segmenter.launch.py"))[
        "generate_launch_description"
    ]()
    (entries,) = made.args
    (node,) = [entry for entry in entries if entry.kind == "node"]
    arguments = {entry.args[0]: entry for entry in entries if entry.kind == actions[0]}
    assert set(arguments) == {"bundle", "image", "namespace", "params_file"}
    assert Path(arguments["params_file"].default_value).is_file()
    assert node.parameters == ["<params_file>", {"bundle": "<bundle>"}]
    assert dict(node.remappings)["image"] == "<image>"
    changes = [entry.event.transition_id for entry in entries if entry.kind == "EmitEvent"]
    (handler,) = [entry.args[0] for entry in entries if entry.kind == "RegisterEventHandler"]
    assert (changes, handler.goal_state, handler.start_state) == ([1], "inactive", "configuring")
    assert [entry.event.transition_id for entry in handler.entities] == [3]
    assert handler.target_lifecycle_node is node


@pytest.mark.slow
def test_its_wheel_has_what_ros_looks_for(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not here, which colcon brings")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    copy = tmp_path / "source"
    subprocess.run(["cp", "-r", PACKAGE, copy], check=True)
    subprocess.run([*pip, "-w", tmp_path, copy], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "fastseg_ros/segmenter.py",
        "share/ament_index/resource_index/packages/fastseg_ros",
        "share/fastseg_ros/package.xml",
        "share/fastseg_ros/launch/segmenter.launch.py",
        "share/fastseg_ros/config/segmenter.yaml",
        "entry_points.txt",
    ):
        assert any(name.endswith(wanted) for name in names), wanted
