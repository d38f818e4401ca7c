"""The backup in the server's place: Primary, checked, mounted, and what the admin wants started. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..model import Resource, Site
from ..observed import DiskState, Host, Operation, Role
from ..tools import drbd, filesystem
from .actions import Action, Note, Once, Run, Serve

VERB = "serve"
"""Of the operation, where it is not part of a failover."""

PARAMETERS: Mapping[str, object] = {"checked": False, "hooks": 0}

CHECK_SECONDS = 6 * 3600.0
HOOK_SECONDS = 600.0
MOUNT_SECONDS = 600.0
"""A journal is replayed in it."""

FORCED = frozenset({DiskState.INCONSISTENT, DiskState.OUTDATED})
"""What `drbdadm primary` does not take without --force."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look for the steps adds to `Host`."""

    fstype: str
    """What blkid finds on the copy; empty for nothing."""
    fstab: str
    hooks: tuple[str, ...] = ()
    """The executables in failover.d, in order."""


def remaining(site: Site, host: Host, operation: Operation, found: Found) -> Iterator[Action]:
    """What is left to do, in order, with a copy that is attached."""
    resource = site.resources[operation.resource]
    seen = host.drbd.get(resource.name)
    if seen is None or seen.role is not Role.PRIMARY:
        force = ("--force",) if seen is not None and seen.disk in FORCED else ()
        yield Run(drbd.adm("primary", resource.name, *force), "it is served from here")
    if resource.name not in host.serving:
        yield Serve(resource.name, "it takes over, and serves it again after a reboot")
    if resource.mount and found.fstype and not host.mounted_at(resource.here.minor):
        check = filesystem.check_before_mount(found.fstype, resource.here.device)
        if check is not None and not operation.parameters["checked"]:
            step = Run(check, "its journal is replayed, and small faults are mended", CHECK_SECONDS, accept=(0, 1))
            yield Once(step, Note(operation, "checked", value=True, why="it was checked"))
        listed = filesystem.fstab_mounts(found.fstab, resource.mount)
        argv = filesystem.mount_made(resource.here.device, resource.mount, listed=listed)
        yield Run(argv, "the configuration says so", timeout=MOUNT_SECONDS)
    for number, hook in enumerate(found.hooks, start=1):
        if number > int(str(operation.parameters["hooks"])):
            step = Run(hook_call(hook, "start", resource), "the admin wants it run", timeout=HOOK_SECONDS)
            yield Once(step, Note(operation, "hooks", number, "it was run"))


def hook_call(hook: str, word: str, resource: Resource) -> tuple[str, ...]:
    """How an executable in failover.d is called; ``word`` is start or stop."""
    return (hook, word, resource.name, resource.here.device, resource.mount)
