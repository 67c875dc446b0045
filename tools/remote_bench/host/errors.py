"""What can go wrong, with the exit code of each; `remote_bench --help` lists them."""

from fastseg_runtime.arrays import command

VALID, INVALID = command.DONE, command.INVALID
UNTRUSTED = 9


class BenchError(Exception):
    """It failed; the message says what came, what was expected and what to do."""

    exit_code = command.FAILED


class UsageError(BenchError):
    """What was asked for cannot be done."""

    exit_code = command.USAGE


class Unreachable(BenchError):
    """No connection, no login, or a connection that broke."""

    exit_code = 4


class HostKeyRefused(BenchError):
    """The host's key is unknown, changed or revoked."""

    exit_code = 5


class MissingRequirement(BenchError):
    """The board lacks something that a measurement needs: Python, space, an engine."""

    exit_code = 6


class DeviceFailure(BenchError):
    """The board failed during the measurement: out of memory, rebooted, the engine not built."""

    exit_code = 7


class BoardBusy(BenchError):
    """Another measurement holds the board, or other programs use it."""

    exit_code = 8


# By the kind of a report's error; all others are a DeviceFailure.
_OF_KIND: dict[str, type[BenchError]] = {
    "board_busy": BoardBusy,
    "connection_lost": Unreachable,
    "disk_full": MissingRequirement,
    "no_engine": MissingRequirement,
    "no_numpy": MissingRequirement,
    "no_runtime": MissingRequirement,
    "power_mode": MissingRequirement,
}


def failure_of(kind: str) -> type[BenchError]:
    """Return the exception, with its exit code, of a kind of error that a report has."""
    return _OF_KIND.get(kind, DeviceFailure)


COMPARED = {
    VALID: "different, or no difference",
    INVALID: "not comparable",
    UNTRUSTED: "cannot tell: noise would explain the difference; or a run failed",
}
# Those that only remote_bench has, or says more about.
EXIT_CODES = {
    VALID: "valid, or valid with notes",
    BenchError.exit_code: "failed otherwise",
    INVALID: "a requirement missed",
    UNTRUSTED: "measured, but not to be trusted: invalid, or less than --strict or --require asks",
    Unreachable.exit_code: "unreachable: no address, connection or login, or the connection broke",
    HostKeyRefused.exit_code: "host key unknown, changed or revoked",
    MissingRequirement.exit_code: "the board lacks a requirement: Python, disk space, an engine",
    DeviceFailure.exit_code: "the board failed: out of memory, rebooted, engine or self-test",
    BoardBusy.exit_code: "the board is busy: another measurement, or other programs (--allow-busy)",
}
OF_DOCTOR = {
    code: why for code, why in EXIT_CODES.items() if code not in (VALID, INVALID, UNTRUSTED)
}
OF_EVIDENCE = EXIT_CODES | {
    VALID: "every artifact that can run there ran and is right",
    BenchError.exit_code: "the time was over first, or it failed otherwise",
    INVALID: "an artifact loses too much of its mIoU",
    UNTRUSTED: "a measurement is not to be trusted",
    DeviceFailure.exit_code: "an artifact gives other masks there, or the board failed",
}
