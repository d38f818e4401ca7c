"""What `doctor` finds, and how much it matters."""

from dataclasses import dataclass
from enum import IntEnum

from ..errors import ExitCode


class Severity(IntEnum):
    """In rising order; drbd-offsite(8) documents the same list."""

    NOTE = 0
    """Good to know."""
    WARNING = 1
    """What runs goes on, and one day something will not be there when it is needed."""
    FAULT = 2
    """Something does not work, or the data is not protected."""

    @property
    def exit_code(self) -> ExitCode:
        return (ExitCode.DONE, ExitCode.WARNED, ExitCode.FAILED)[self]

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    what: str
    remedy: str
