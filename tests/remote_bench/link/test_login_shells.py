"""Boards whose sshd or login shell is odd."""

import shutil

import pytest
from remote_bench.host.errors import MissingRequirement, Unreachable
from remote_bench.link.connection import Connection, Limits

from tests.boards.measuring import connect, run

pytestmark = pytest.mark.slow  # needs openssh-server


@pytest.fixture
def host_with(start_sshd, ssh_client):
    hosts = []

    def start(**options):
        sshd = start_sshd(**options)
        alias = ssh_client.add(f"board{len(hosts)}", sshd)
        hosts.append(connect(alias))
        return hosts[-1], sshd

    yield start
    for host in hosts:
        host.close()


@pytest.mark.parametrize("shell", ["sh", "bash", "rbash", "fish", "tcsh"])
def test_a_run_works_behind_any_login_shell(host_with, bundle, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    host, sshd = host_with(config=f'ForceCommand {shell} -c "$SSH_ORIGINAL_COMMAND"')
    assert run(host, bundle=bundle).error is None
    assert sshd.left() == []


def test_a_login_shell_that_prints_before_and_beside_our_lines_does_no_harm(host_with, bundle):
    noisy = (
        "ForceCommand echo Welcome to the board; printf 'no line break'; "
        "(for i in 1 2 3 4 5; do echo noise; printf '\\377\\376'; sleep 0.5; done) & "
        'sh -c "$SSH_ORIGINAL_COMMAND"; wait'
    )
    host, sshd = host_with(config=noisy)
    report = run(host, bundle=bundle)
    assert report.error is None and report.fps > 0
    assert sshd.left() == []


def test_a_login_shell_that_reads_its_stdin_takes_nothing_of_ours(host_with):
    host, sshd = host_with(config='ForceCommand read -r line; sh -c "$SSH_ORIGINAL_COMMAND"')
    with pytest.raises(Unreachable, match=r"start /bin/sh within 2 s.* waits for input"):
        Connection(host, Limits(shell_s=2))
    host, sshd = host_with(
        config="ForceCommand bash -c 'read -r -t 1 line; read -r -t 0.1 -n 9; eval "
        '"$SSH_ORIGINAL_COMMAND"\''
    )
    with Connection(host) as session:
        assert session.hello["python"]
    assert sshd.left() == []


@pytest.mark.parametrize("sftp", ["", "Subsystem sftp /bin/false"])
def test_no_sftp_is_needed(host_with, bundle, sftp):
    host, sshd = host_with(config=sftp, sftp=False)
    assert run(host, bundle=bundle).error is None
    assert sshd.left() == []


def test_a_forced_command_is_quoted(host_with):
    host, _ = host_with(config="ForceCommand echo only backups here; exit 3")
    with pytest.raises(Unreachable, match=r"status 3 .*only backups here.* no forced command"):
        Connection(host)


def test_an_account_for_sftp_alone_is_said_to_start_no_program(host_with):
    host, _ = host_with(config="ForceCommand internal-sftp")
    with pytest.raises(Unreachable, match=r"login shell (ended|did not start)"):
        Connection(host, Limits(shell_s=5))


def test_a_forced_command_that_never_ends_is_given_up(host_with):
    host, _ = host_with(config="ForceCommand echo Press any key; sleep 600")
    with pytest.raises(Unreachable, match=r"start /bin/sh within 2 s, and said: Press any key"):
        Connection(host, Limits(shell_s=2))


def test_a_board_without_python_is_told_what_to_install(host_with, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("sh", "uname"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    host, sshd = host_with(path=str(tmp_path / "bin"))
    with pytest.raises(MissingRequirement, match="has no Python 3.6 or newer"):
        Connection(host)
    assert sshd.left() == []


def test_a_locale_with_decimal_commas_changes_no_number(host_with, bundle):
    host, _ = host_with(environment={"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"})
    report = run(host, bundle=bundle)
    assert report.error is None and report.fps > 0
