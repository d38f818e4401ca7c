"""The steps of an adoption that are left.

Nothing remembers how far an earlier run came: every step's need is seen on the machine.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from .. import config
from ..render import HEADER, KEYS, Rendered, resource_file
from ..tools import systemd
from .actions import Action, Run, WriteFile
from .adopt import Adoption
from .adopt_found import Found
from .examine import DRBD_UTILS_UNIT, WATCHER
from .half import outdated

FSTAB = "/etc/fstab"

KEPT = "/var/lib/drbd-offsite/adopted"
"""Where the files that were made by hand are afterwards."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come."""

    files: Mapping[str, str] = field(repr=False)
    """Those of the rendered files that are there."""
    kept: Mapping[str, str] = field(repr=False)
    """What is in `KEPT`, by name."""
    enabled: frozenset[str]
    """The resources whose unit is enabled."""
    watched: bool
    """The watcher runs; it does not where there was no configuration."""
    starters: tuple[str, ...] = ()
    """Of `other_starters` those that are enabled."""


def other_starters(adoption: Adoption) -> tuple[str, ...]:
    """The units of drbd-utils that bring up nothing at boot but what ours do.

    They adjust, past every hold, and drbd.service then waits for the peer before it lets ours begin
    (scripts/drbd, "wait-con-int"; drbd.conf(5), wfc-timeout).
    """
    targets = [f"drbd@{resource.name}.target" for resource in adoption.resources]
    return (*targets, *(() if adoption.left else (DRBD_UTILS_UNIT,)))


def steps(found: Found, adoption: Adoption, wanted: Sequence[Rendered], progress: Progress) -> Iterator[Action]:
    """What is left to do, in order; ``wanted`` is what follows from the new configuration.

    Whenever it is broken off, DRBD's files define each resource once. Our configuration comes after them: as
    long as it does not name a resource, nothing else of ours writes a second file for it.
    """
    ours = {file.path: file.text for file in wanted}
    own = {resource.name: resource_file(resource) for resource in adoption.resources}
    for path in adoption.files.values():
        text = found.files[path]
        if not text.startswith(HEADER) and text not in progress.kept.values():
            kept = _free(PurePath(path).name, progress.kept)
            yield WriteFile(f"{KEPT}/{kept}", text, 0o600, "the file that was made by hand is kept")
    for peer, secret in adoption.secrets.items():
        if found.secrets.get(peer) != secret:
            yield WriteFile(f"{KEYS}/{peer}/drbd.secret", f"{secret}\n", 0o600, "the secret that DRBD has now")
    yield from _fstab(found.fstab, adoption.fstab.renamed, "a device is mounted by its number, which it keeps")
    for name, path in adoption.files.items():
        if found.files[path] != ours[own[name]]:
            yield WriteFile(path, ours[own[name]], 0o600, "ours takes its place, in one step")
        if path != own[name]:
            yield Run(("mv", "--no-target-directory", path, own[name]), "and has the name of ours")
    if adoption.config != found.config:
        yield WriteFile(str(config.PATH), adoption.config, 0o644, "what DRBD's files say")
    yield from outdated(tuple(file for file in wanted if file.path not in own.values()), progress.files)
    yield from _fstab(adoption.fstab.renamed, adoption.fstab.ordered, "at boot a mount waits for its resource")
    yield from _units(adoption, progress)


def _units(adoption: Adoption, progress: Progress) -> Iterator[Run]:
    """First ours: at any time something brings the resources up at boot."""
    for resource in adoption.resources:
        if resource.name not in progress.enabled:
            unit = systemd.resource_unit(resource.name)
            yield Run(systemd.systemctl("enable", "--now", "--no-block", unit), "it comes up at boot")
    for unit in progress.starters:
        # What runs is not stopped: that would bring the resources down.
        yield Run(systemd.systemctl("disable", unit), "at boot it would connect past a hold, and wait for the peer")
    if not progress.watched:
        yield Run(systemd.systemctl("start", "--no-block", WATCHER), "it looks after what runs")


def _fstab(now: str, wanted: str, why: str) -> Iterator[Action]:
    if wanted != now:
        yield WriteFile(FSTAB, wanted, 0o644, why)
        # As long as it knows a mount by a name that udev then takes away, it unmounts it (systemd issue 19983).
        yield Run(systemd.DAEMON_RELOAD, "systemd reads that")


def _free(name: str, taken: Collection[str]) -> str:
    """A name under which nothing is kept from an earlier time."""
    names = [name, *(f"{name}.{number}" for number in range(1, len(taken) + 1))]
    return next(free for free in names if free not in taken)
