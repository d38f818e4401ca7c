"""The one tree of errors that reach a person, each with its exit code and the way on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``drbd-offsite``; drbd-offsite(8) documents the same list."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    PEER_UNREACHABLE = 4
    HELD = 5
    WARNED = 6


class OffsiteError(Exception):
    """What happened (the message) and what to do next (the hint)."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OffsiteError):
    """The words of the call are wrong."""

    exit_code = ExitCode.USAGE


class ConfigError(OffsiteError):
    """A file of ours does not say something that can be applied."""


class NotConfigured(OffsiteError):
    """The packages are installed, but nobody has answered their questions yet."""


class ToolFailed(OffsiteError):
    """An external program exited with an error, or did not end in time."""


class SystemFailed(OffsiteError):
    """The kernel said no to reading or writing a file: a full disk, above all."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"{error}.", "Where a disk is full or read-only, see to that; the same command then goes on.")


class Refused(OffsiteError):
    """A guard said no, and nothing was changed."""

    exit_code = ExitCode.REFUSED


class PeerUnreachable(OffsiteError):
    """The other machine did not answer, which says nothing about its data."""

    exit_code = ExitCode.PEER_UNREACHABLE


class Held(OffsiteError):
    """A hold forbids what was asked for."""

    exit_code = ExitCode.HELD


class BadRequest(OffsiteError):
    """The peer, or a file it sent, does not speak our protocol."""

    exit_code = ExitCode.REFUSED
