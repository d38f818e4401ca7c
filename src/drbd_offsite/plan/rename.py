"""Another name for a resource, on each machine for itself: DRBD 8.4 tells its peer no name, and changes none.

So it goes down under the old name and comes up under the new one, and which one that is the configuration says, at a
boot too. What a boot under the new name needs is prepared under the old one; but for drbdadm's file, for drbdadm takes
no two with the same minor. A boot that comes in between puts that right first (`files`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import config
from ..errors import PeerUnreachable, Refused
from ..messages import Half, Rename
from ..model import RESOURCE_NAME, Flavour, Replica, Resource, Site
from ..observed import DiskState, Forbidden, Host, Operation, Role
from ..render import render, resource_file
from ..tools import filesystem, systemd
from . import circle, half
from .actions import Action, AskPeer, CarryOver, Consult, Lift, Note, Once, RemoveFile, Run, WriteFile
from .half import outdated
from .leave import leave, let_go
from .order import relink
from .remove import files_of


@dataclass(frozen=True, slots=True)
class Renaming:
    """What an unfinished ``rename`` has decided; it lives in the journal of each machine."""

    name: str
    new: str
    here: Replica
    mounts: tuple[str, ...] = ()
    """Where the device was mounted, and is to be again."""
    stand_in: str = ""
    """A name of the device without the resource's, which fstab does not use; it does so for a while."""
    settled: bool = False
    """The files that belong to the new name are there, and those of the old one are not."""
    relink: tuple[str, ...] = ()
    """Resources that wait for this one's resync: one that came up in between does not know that."""
    started: bool = False
    """The new name's unit runs, so that it is taken down in order at shutdown."""
    asked_peer: bool = False
    """Whether the backup has done the same."""

    def parameters(self) -> dict[str, object]:
        """As JSON, for `journal.begin`."""
        values = {**asdict(self), "here": asdict(Half.of(self.here))}
        del values["name"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def of(cls, operation: Operation) -> "Renaming":
        """What `parameters` put on disk."""
        values: dict[str, Any] = dict(operation.parameters)
        here = Half(**values.pop("here")).replica()
        mounts, waiting = tuple(values.pop("mounts")), tuple(values.pop("relink"))
        return cls(operation.resource, here=here, mounts=mounts, relink=waiting, **values)

    @property
    def units(self) -> tuple[str, str]:
        return systemd.resource_unit(self.name), systemd.resource_unit(self.new)

    @property
    def by_res(self) -> tuple[str, str]:
        old, new = (Resource(name, "", self.here, self.here) for name in (self.name, self.new))
        return old.by_res, new.by_res


@dataclass(frozen=True, slots=True)
class Findings(half.Findings):
    """``unit_enabled`` and ``unit_active`` are those of the old name."""

    new_enabled: bool = False
    kinds: tuple[str, ...] = ()
    """Under which something is remembered of the old name."""


def remaining(site: Site, host: Host, operation: Operation, found: Findings) -> Iterator[Action]:
    """What is left to do on this machine, in order; on the server the backup's half too.

    Raises Refused, and PeerUnreachable where it cannot be served before the backup had its time to speak.
    """
    renaming = Renaming.of(operation)
    why = f"it is {renaming.new} from now on"
    now = under(site, renaming)
    # First of all what may fail because somebody uses it: until then it goes on as before.
    yield from let_go(site, host, renaming.name, now.here, why)
    text = found.config
    if now.name == renaming.name:
        yield from _prepare(host, renaming, found)
        text = config.renamed(text, renaming.name, renaming.new)
        yield WriteFile(str(config.PATH), text, 0o644, why)
    whole = config.parse(text)
    yield from settle(whole, host, operation, found)
    yield from _leave_behind(host, renaming, found)
    yield from _come_up(whole, host, renaming, found)
    yield from relink(whole, host, operation, renaming.relink)
    if site.flavour is Flavour.SERVER and not renaming.asked_peer:
        yield AskPeer(now.peer, request(renaming), "it is to have that name on both machines")
    # Last: the unit waits for the lock that is held now, and not for as long as the backup may take.
    yield from start(operation)


def start(operation: Operation) -> Iterator[Once]:
    """The new name's unit, which is not waited for; it serves what is not served yet."""
    renaming = Renaming.of(operation)
    if not renaming.started:
        step = Run(systemd.systemctl("start", "--no-block", renaming.units[1]), "it is to be stopped in order")
        yield Once(step, Note(operation, "started", True, step.why))


def back(site: Site, host: Host, renaming: Renaming, fstab: str) -> Iterator[Action]:
    """Served and mounted under the old name again, as long as the configuration has that."""
    seen = host.drbd.get(renaming.name)
    if seen is None or seen.role is not Role.PRIMARY:
        yield from circle.decide(site, host, site.resources[renaming.name]).actions
    else:
        yield from missing(renaming, host.mounted_at(renaming.here.minor), fstab)


def request(renaming: Renaming, only_check: bool = False) -> Rename:
    """What the server asks of the backup."""
    return Rename(renaming.name, renaming.new, Half.of(renaming.here), only_check)


def under(site: Site, renaming: Renaming) -> Resource:
    """The resource, by the name that the configuration has now."""
    match [site.resources[name] for name in (renaming.name, renaming.new) if name in site.resources]:
        case [resource]:
            return resource
        case found:
            raise Refused(
                f"The configuration has {'both' if found else 'neither'} {renaming.name} {'and' if found else 'nor'} "
                f"{renaming.new}, and one of them was to become the other.",
                f"Correct [resources] in {config.PATH}, then run the same command.",
            )


def settle(site: Site, host: Host, operation: Operation, found: Findings) -> Iterator[Action]:
    """The old name out of the kernel, then the files for the new one, which the configuration has."""
    renaming = Renaming.of(operation)
    early = resource_file(site.resources[renaming.new])
    if renaming.name in host.drbd and early in found.files:
        yield RemoveFile(early, "somebody has rendered it already, and drbdadm takes no two with one minor")
    yield from leave(host, renaming.name, f"it is {renaming.new} from now on")
    if not renaming.settled:
        yield from files(site, host, operation, found)


def files(site: Site, host: Host, operation: Operation, found: Findings) -> Iterator[Action]:
    """drbdadm's and the unit's, once the configuration has the new name and the kernel none."""
    renaming = Renaming.of(operation)
    resource = site.resources[renaming.new]
    why = f"it is {renaming.new} from now on"
    old = [path for path in files_of(replace(resource, name=renaming.name)) if path in found.files]
    if old:
        others = {name: other for name, other in site.resources.items() if name != renaming.new}
        # Before its own: drbdadm complains of a resync-after that names nobody.
        yield from outdated(render(replace(site, resources=others), found.credentials, host.hostname), found.files)
    for path in old:
        yield RemoveFile(path, why)
    rendered = render(site, found.credentials, host.hostname)
    first = files_of(resource)
    yield from outdated(tuple(sorted(rendered, key=lambda file: file.path not in first)), found.files)
    yield Note(operation, "settled", True, "from here on it can come up under that name")


def _prepare(host: Host, renaming: Renaming, found: Findings) -> Iterator[Action]:
    """All that a boot under the new name needs and one under the old name does not mind."""
    if _held(host, renaming.name) - _held(host, renaming.new):
        yield CarryOver(renaming.name, renaming.new, (), "what is held stays so")
    if not found.new_enabled:
        yield Run(systemd.systemctl("enable", renaming.units[1]), "it comes up at boot under either name")
    fstab = filesystem.fstab_replaced(found.fstab, renaming.by_res[0], renaming.stand_in)
    fstab = filesystem.fstab_replaced(fstab, f"x-systemd.requires={renaming.units[0]}", _after_either(renaming))
    if fstab != found.fstab:
        yield WriteFile("/etc/fstab", fstab, 0o644, "it is mounted at boot under either name")


def _after_either(renaming: Renaming) -> str:
    """The order on the unit, of which the one that the configuration does not know fails at once."""
    return ",".join(f"x-systemd.after={unit}" for unit in renaming.units)


def _leave_behind(host: Host, renaming: Renaming, found: Findings) -> Iterator[Action]:
    """What is left of the old name; all of it has its like under the new one by now."""
    if found.kinds or _held(host, renaming.name) - _held(host, renaming.new):
        yield CarryOver(renaming.name, renaming.new, found.kinds, "its history goes with it")
    if renaming.name in host.holds:
        yield Lift(renaming.name, "", f"the renaming to {renaming.new}")
    fstab = filesystem.fstab_replaced(found.fstab, renaming.stand_in, renaming.by_res[1])
    fstab = filesystem.fstab_replaced(fstab, _after_either(renaming), f"x-systemd.requires={renaming.units[1]}")
    fstab = filesystem.fstab_replaced(fstab, renaming.units[0], renaming.units[1])
    if fstab != found.fstab:
        yield WriteFile("/etc/fstab", fstab, 0o644, "its device has that name now")
    if found.unit_enabled or found.unit_active:
        # Which has systemd read fstab again: it unmounts what comes from a device that it believes gone.
        yield Run(systemd.systemctl("disable", "--now", renaming.units[0]), "there is nothing of that name any more")


def _held(host: Host, name: str) -> set[str]:
    return {hold.set_by for hold in host.holds.get(name, ())}


def _come_up(site: Site, host: Host, renaming: Renaming, found: Findings) -> Iterator[Action]:
    """As the circle would have it, and mounted as soon as it is served."""
    resource = site.resources[renaming.new]
    decision = circle.decide(site, host, resource)
    if any(isinstance(action, Consult) for action in decision.actions[:1]) and renaming.new in host.consulted:
        raise PeerUnreachable(
            f"{resource.peer} was to say first whether it has taken over {renaming.new}, and does not answer.",
            "The watcher serves it by itself when the peer had its time; then run the same command again.",
        )
    seen = host.drbd.get(renaming.new)
    served = seen is not None and seen.role is Role.PRIMARY
    mounts = tuple(missing(renaming, host.mounted_at(renaming.here.minor) if seen else (), found.fstab))
    if not served:
        yield from decision.actions
        if mounts and not decision.actions:
            raise Refused(
                f"{renaming.new} is not served, so it is not mounted at {', '.join(renaming.mounts)} yet: "
                f"{decision.reason}.",
                f"drbd-offsite status {renaming.new} says what to do about that; then run the same command again.",
            )
    yield from mounts
    if served:
        yield from decision.actions


def missing(renaming: Renaming, mounted: tuple[str, ...], fstab: str) -> Iterator[Run]:
    """Its filesystem back where it was mounted and is no more."""
    for target in renaming.mounts:
        if target not in mounted:
            listed = filesystem.fstab_mounts(fstab, target)
            argv = filesystem.mount_from_fstab(target) if listed else filesystem.mount(renaming.here.device, target)
            yield Run(argv, "its filesystem was mounted there")


# -- refusals --------------------------------------------------------------------------------------


def named(name: str, new: str) -> Refused | None:
    """Whether it is another name, and one at all: it becomes part of file, unit and lock names."""
    if RESOURCE_NAME.fullmatch(new) is None:
        return Refused(f"{new[:80]!r} cannot be a resource's name.", "Letters, digits and _ . -, at most 63.")
    return Refused(f"{name} has that name already.", "Nothing was changed.") if name == new else None


def finished(host: Host, name: str) -> Refused | None:
    """Whether no renaming of a resource, or to its name, waits to be finished."""
    for operation in host.operations.values():
        if operation.verb == circle.RENAMING and name in (operation.resource, operation.parameters.get("new")):
            command = f"{operation.resource} {operation.parameters.get('new')}"
            return Refused(
                f"rename of {operation.resource} is not finished.",
                f"Finish that first, on the server: drbd-offsite rename {command}",
            )
    return None


def free(site: Site, host: Host, name: str, new: str) -> Refused | None:
    """On either machine: whether a resource may change its name now, and the new one is nobody's."""
    if host.blind:
        return Refused(
            f"DRBD's state on {host.hostname} cannot be seen: {'; '.join(host.problems)}.",
            "drbd-offsite doctor there says what to do about it.",
        )
    for each in (name, new):
        if refusal := finished(host, each):
            return refusal
    for operation in host.operations.values():
        # A seed is written of a volume, whose name stays.
        if operation.resource in (name, new) and operation.verb != "export-seed":
            return Refused(
                f"{operation.verb} of {operation.resource} on {host.hostname} is not finished.",
                f"Finish that first: drbd-offsite {operation.finished_by}, on the server.",
            )
    if new in site.resources or new in host.drbd:
        return Refused(f"{host.hostname} has a resource {new} already.", "Choose another name.")
    return _comes_back(host, name)


def _comes_back(host: Host, name: str) -> Refused | None:
    """Whether what goes down for a moment may come up again, and can."""
    seen = host.drbd.get(name)
    if seen is None:
        return None
    served = seen.role is Role.PRIMARY
    if hold := host.held(name, Forbidden.ATTACH) or (host.held(name, Forbidden.PROMOTE) if served else None):
        why = f"is held on {host.hostname} ({hold.reason})"
    elif served and seen.disk is not DiskState.UP_TO_DATE:
        why = f"has a copy on {host.hostname} that is {seen.disk}"
    else:
        return None
    return Refused(
        f"{name} {why}: it has to go down for a moment to get another name, and would not come up again.",
        f"drbd-offsite status {name} there says what to do about that; then run the same command again.",
    )
