import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_bench.host.errors import HostKeyRefused
from remote_bench.host.host_keys import KnownKeys, fingerprint, matches, preferred, read_lines
from remote_bench.host.ssh_config import SshSettings

KIND = "ssh-ed25519"


def key_of(number: int) -> tuple[str, bytes]:
    head = len(KIND).to_bytes(4, "big") + KIND.encode()
    return KIND, head + (32).to_bytes(4, "big") + bytes([number]) * 32


def line_of(name: str, key: tuple[str, bytes], marker: str = "") -> str:
    return f"{marker}{name} {key[0]} {base64.b64encode(key[1]).decode()} comment\n"


def known(file: Path, **settings) -> KnownKeys:
    plain = {"hostname": "board", "port": 22, "user": "me", "user_known_hosts": (file,)}
    return KnownKeys(SshSettings(**{**plain, **settings}))


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ("board", "board", True),
        ("BOARD", "board", True),
        ("other,board", "board", True),
        ("board.local", "board", False),
        ("*.lan", "jetson.lan", True),
        ("192.168.1.?", "192.168.1.7", True),
        ("192.168.1.?", "192.168.1.17", False),
        ("*,!board", "board", False),
        ("[board]:2222", "[board]:2222", True),
        ("[board]:2222", "board", False),
        ("board", "[board]:2222", False),
        ("[b]oard", "board", False),
        ("|1|bad", "board", False),
        ("|1|x|y", "board", False),
    ],
)
def test_host_patterns_match_as_openssh_matches_them(patterns, name, expected):
    assert matches(patterns, name) is expected


def test_a_hashed_line_is_found_however_the_host_is_typed(tmp_path):
    file = tmp_path / "known_hosts"
    salt = b"salt" * 5
    digest = hmac.new(salt, b"board.lan", hashlib.sha1).digest()
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    file.write_text(line_of("|1|" + "|".join(parts), key_of(1)))
    assert [line.key for line in read_lines(file, "Board.LAN")] == [key_of(1)]
    known(file, hostname="Jetson").check(key_of(2), "Jetson", fingerprint(key_of(2)))
    assert file.read_text().splitlines()[-1].startswith("jetson ")  # as ssh would look for it


def test_a_fingerprint_is_what_ssh_keygen_prints():
    # ssh-keygen -lf - of this key says so
    assert fingerprint(key_of(1)) == "SHA256:RXm/ruZ0eTzRXKwi1AQEDynB0VgHQ2ac9KPSFdf/YnA"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80), max_size=6), st.data())
def test_no_junk_hides_or_makes_a_line(tmp_path, junk, data):
    good = line_of("board", key_of(1)).encode()
    lines = [line.replace(b"\n", b"") + b"\n" for line in junk]
    lines.insert(data.draw(st.integers(0, len(lines))), good)
    file = tmp_path / "known_hosts"
    file.write_bytes(b"".join(lines))
    assert [line.key for line in read_lines(file, "board")] == [key_of(1)]


def test_a_key_whose_bytes_say_another_type_than_its_line_is_junk(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(line_of("board", ("ssh-rsa", key_of(1)[1])))
    assert list(read_lines(file, "board")) == []


def test_a_certificate_authority_approves_nothing(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(line_of("board", key_of(1), "@cert-authority "))
    with pytest.raises(HostKeyRefused, match="unknown host key"):
        known(file).check(key_of(1), "board", None)


def test_a_key_accepted_for_a_file_without_a_last_line_break_gets_a_line_of_its_own(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(line_of("other", key_of(2)).rstrip("\n"))
    known(file).check(key_of(1), "board", fingerprint(key_of(1)))
    assert [line.key for line in read_lines(file, "board")] == [key_of(1)]
    assert [line.key for line in read_lines(file, "other")] == [key_of(2)]


def test_an_accepted_key_is_kept_under_its_port_or_alias(tmp_path):
    file = tmp_path / "new" / "known_hosts"
    known(file, port=2222).check(key_of(1), "board", fingerprint(key_of(1)))
    known(file, host_key_alias="name").check(key_of(2), "board", fingerprint(key_of(2)))
    names = [line.split()[0] for line in file.read_text().splitlines()]
    assert names == ["[board]:2222", "name"]


def test_a_known_hosts_file_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    note = known(tmp_path / "file" / "known_hosts").check(
        key_of(1), "board", fingerprint(key_of(1))
    )
    assert "cannot be written" in note


def test_algorithms_of_known_keys_are_asked_for_first():
    offered = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert preferred(["ssh-rsa"], offered)[:2] == ["rsa-sha2-512", "rsa-sha2-256"]
    assert preferred([], offered) == offered
