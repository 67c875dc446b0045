"""Login on an SSH connection whose host key is approved: key files, agent, then a password."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import paramiko

from remote_bench.host.errors import Unreachable
from remote_bench.host.ssh_config import SshSettings

AskPassword = Callable[[str], str | None]  # prompt -> password; None: there is nobody to ask
_MOST_KEYS = 5  # sshd closes the connection after MaxAuthTries, 6 by default


def log_in(transport: paramiko.Transport, settings: SshSettings, ask: AskPassword) -> None:
    """Log in, or say what was tried.

    Raises:
        Unreachable: the board accepts none of the keys and no password.
    """
    tried: list[str] = []
    for number, (name, key) in enumerate(_keys(settings, tried)):
        if number == _MOST_KEYS:
            tried.append("no more than that: set IdentitiesOnly and IdentityFile in ~/.ssh/config")
            break
        if _accepts(partial(transport.auth_publickey, settings.user, key), name, tried):
            return
    if not transport.is_active():
        raise Unreachable(_refused(settings, [*tried, "the board closed the connection"]))
    password = ask(f"Password of {settings.user}@{settings.hostname}: ")
    if password is None:
        raise Unreachable(_refused(settings, tried))
    if not _accepts(partial(transport.auth_password, settings.user, password), "password", tried):
        raise Unreachable(_refused(settings, tried))


def _accepts(attempt: Callable[[], list[str]], name: str, tried: list[str]) -> bool:
    try:
        more = attempt()
    except paramiko.SSHException as error:
        tried.append(f"{name}: {error}")
        return False
    if more:
        tried.append(f"{name}: accepted, but {more} is asked for as well")
    return not more


def _keys(settings: SshSettings, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    for file in settings.identity_files:
        if file.is_file() and (key := _load(file, tried)) is not None:
            yield str(file), key
    agent = paramiko.Agent()
    try:
        for key in agent.get_keys():
            if not settings.identities_only or _is_listed(key, settings.identity_files):
                yield f"agent's {key.get_name()} {key.fingerprint}", key
    finally:
        agent.close()


def _load(file: Path, tried: list[str]) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(file)
    except (paramiko.PasswordRequiredException, TypeError):  # TypeError: of PKey.from_path
        tried.append(f"{file}: encrypted; put it into your agent with ssh-add")
    except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError, OSError) as error:
        tried.append(f"{file}: {error}")
    return None


def _is_listed(key: paramiko.PKey, files: tuple[Path, ...]) -> bool:
    publics = (Path(f"{file}.pub") for file in files)
    return any(key.get_base64() in file.read_text("utf-8") for file in publics if file.is_file())


def _refused(settings: SshSettings, tried: list[str]) -> str:
    return (
        f"{settings.hostname} refuses the login of {settings.user}: "
        f"{'; '.join(tried) or 'no key was found'}. Try: ssh-copy-id {settings.user}@"
        f"{settings.hostname}, or give a password at the prompt or with --password-fd"
    )
