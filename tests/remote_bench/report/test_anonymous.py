"""What may be given away has no name, address, key, serial or path of anybody in it."""

import getpass
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.analysis.report import read_report
from remote_bench.report.anonymous import Cleaner, anonymous

NAMES = ["pi@jetson-3.lab.example.com", "10.77.13.2", "alice", "orin-of-alice"]
CLEANER = Cleaner(NAMES, ["10.3.0.30-1+cuda12.5", "10.3.0", "1.26"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("alice: no answer from orin-of-alice.", "[name]: no answer from [name]."),
        ("jetson-3.lab.example.com broke", "[name] broke"),
        ("the board at 10.77.13.2 hangs", "the board at [name] hangs"),
        ("ssh bob@192.168.55.1 true", "ssh [user]@[host] true"),
        ("bob@nas.fritz", "[user]@[host]"),
        ("from 192.168.55.1:22", "from [address]:22"),
        ("from fe80::1%usb0 and 2001:db8::2.", "from [address] and [address]"),
        ("eth0 48:b0:2d:11:22:33", "eth0 [address]"),
        ("try nas.local or nas.fritz.lan", "try [host] or [host]"),
        ("No such file: '/home/bob/model.onnx'", "No such file: '[path]'"),
        ("in ~/.cache/x and /opt/seg", "in [path] and [path]"),
        (r"in C:\Users\Bob\x.onnx", "in [path]"),
        ("key SHA256:" + "aB3/" * 10 + "abc", "key [key]"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "[key]"),
        ("GPU-1b2c3d4e-1111-2222-3333-123456789abc", "GPU-[id]"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", "[key]"),
    ],
)
def test_what_tells_who_and_where_is_replaced(text, left):
    assert CLEANER.clean(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "TensorRT 10.3.0.30-1+cuda12.5",
        "ONNX Runtime 1.32.0 at 12:31:07, 2026-11-28T22:49:05Z",
        "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
        "jetson-fp16 on orin-nano, raspberry-pi-5",
        "cpu@44.093C tj@46.968C VDD_IN 4915mW/4915mW",
        "3 of 4 frames, 50 FPS/W and 1/2",
    ],
)
def test_what_is_evidence_stays(text):
    assert CLEANER.clean(text) == text


def test_this_user_and_machine_are_known_without_being_named():
    for name in (getpass.getuser(), socket.gethostname()):
        assert name == "root" or name not in Cleaner([]).clean(f"{name} said: {name}")


def test_a_board_that_is_called_like_its_kind_keeps_its_kind():
    assert Cleaner(["thor"]).clean({"device": "thor"}) == {"device": "thor"}


@given(st.text("ab.@:/[]~% 0129", max_size=40))
def test_a_known_name_never_stays(text):
    known = "orin-of-alice"
    assert known not in Cleaner([known]).clean(f"{text} {known} {text}")


def test_a_name_with_a_port_and_one_in_capitals_are_known():
    cleaner = Cleaner(["me@orin.acme.com:2222", "Robot7.acme.com", "fe80::1:22"])
    for text in ("orin.acme.com: no connection", "ROBOT7.acme.com port 22", "robot7.acme.com"):
        assert "acme" not in cleaner.clean(text).lower()


def test_a_records_own_words_stay_though_a_host_be_called_so():
    table = {"target": {"device": "x"}, "jetson": {"l4t": "36"}}
    assert Cleaner(["target", "device", "jetson"]).clean(table) == table


def test_keys_and_lists_are_cleaned_too():
    found = CLEANER.clean({"/home/bob": [("alice", 1, None)]})
    assert found == {"[path]": [["[name]", 1, None]]}


def test_a_report_without_names_is_a_report_still(report_of, made_result):
    raw = made_result(log="alice was here", request={"sampler_hz": 10, "work_dir": "/home/alice"})
    raw["probe"]["board"]["serial_sha256"] = "5e" * 32
    report = report_of(raw, host="pi@h", address="10.0.0.7", run_id="run-x")
    text = json.dumps(CLEANER.clean(anonymous(report).to_table()))
    for private in ("alice", "pi@h", "10.0.0.7", "run-x", "5e5e", "boot-1"):
        assert private not in text
    assert read_report(text).fps == report.fps
