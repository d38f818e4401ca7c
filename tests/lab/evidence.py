"""What a test leaves behind: words that must never be logged, and logs for whoever debugs it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .ssh import CommandFailedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Collection

    from .lab import Lab
    from .machine import Machine

LOGS = Path(__file__).with_name("logs")

FORBIDDEN = (
    "Traceback (most recent call last)",
    "Split-Brain detected",
    "ordering cycle",
    "Unknown key name",
    "Kernel panic",
    "kernel BUG at",
    "BUG: unable to handle",
    "Oops: ",
    "blocked for more than",
)

_STATE = """\
for command in 'cat /proc/drbd' 'drbdsetup events2 --now --statistics' 'drbdsetup show' \
    'pvs' 'vgs' 'lvs -a -o +devices' 'lsblk -f' 'ip -br address' 'ip route' 'mount' \
    'systemctl --no-pager --failed' 'ps axf'; do
    echo "== $command"
    timeout 20 $command
done 2>&1 | sed -E 's/(shared-secret).*/\\1 (removed)/'
"""

# Keys are left out: by file name, by block, and by the line.
_CONFIG = r"""
cd /etc && find drbd.conf drbd.d openvpn wireguard drbd-offsite /var/lib/drbd-offsite \
    -type f ! -path '*/keys/*' ! -name '*.key' ! -name '*.pem' 2>/dev/null |
while read -r file; do
    echo "== $file"
    sed -E -e '/BEGIN .*PRIVATE KEY|<(key|secret|tls-auth|tls-crypt)>/,/END .*PRIVATE KEY|<\//d' \
        -e 's/(PrivateKey|PresharedKey|secret|password)\>.*/\1 (removed)/I' "$file"
done
"""


class Watch:
    """Reads what both machines logged since it was made."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._since = time.time()
        # The console also tells of a machine that is off by now, or whose journal was rewound.
        self._marks = {machine.name: len(_console(machine)) for machine in lab.machines}

    def findings(self, allowed: Collection[str] = ()) -> list[str]:
        """Name every logged line with a forbidden word that the test did not expect."""
        words = [word for word in FORBIDDEN if word not in allowed]
        return [
            f"{machine.name}: {line}"
            for machine in self._lab.machines
            for line in self._lines(machine)
            if any(word in line for word in words)
        ]

    def _lines(self, machine: Machine) -> list[str]:
        lines = _console(machine)[self._marks[machine.name] :].splitlines()
        if machine.pid is not None:
            lines += machine.journal(self._since).splitlines()
        return lines


def collect(lab: Lab, failure: str) -> None:
    """Copy what helps to understand a failure into a directory made afresh and named after it."""
    target = LOGS / re.sub(r"[^\w.-]+", "-", failure)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for machine in lab.machines:
        (target / f"{machine.name}-console.txt").write_text(_console(machine))
        for name, command in (
            ("journal", "journalctl --quiet --no-pager --output=short-precise"),
            ("state", _STATE),
            ("config", _CONFIG),
        ):
            (target / f"{machine.name}-{name}.txt").write_text(_ask(machine, command))


def _ask(machine: Machine, command: str) -> str:
    if machine.pid is None:
        return "The machine was off.\n"
    try:
        return machine.run(command, check=False).stdout
    except (CommandFailedError, UnreachableError) as error:
        return f"{error}\n"


def _console(machine: Machine) -> str:
    return machine.console.read_text(errors="replace")
