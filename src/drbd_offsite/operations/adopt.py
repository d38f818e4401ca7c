"""Taking over a machine that was set up by hand, while it runs."""

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .. import config, files, host, journal, keys
from ..errors import OffsiteError, Refused, ToolFailed
from ..execute import execute
from ..model import Flavour, Site, VolumeName
from ..observed import DrbdResource, Forbidden, LogicalVolume
from ..plan.actions import Action, Run, WriteFile, describe
from ..plan.adopt import Adoption, decide
from ..plan.adopt_found import Found
from ..plan.adopt_steps import Progress, other_starters, steps
from ..plan.adopt_words import explain
from ..plan.examine import WATCHER
from ..render import Credentials, Rendered, render
from ..run import run
from ..tools import drbd, drbd_dump, iproute, lvm, openvpn, systemd
from ..tools.drbd_dump import DumpedResource, Volume
from . import half
from .apply import current

DRBD_CONF = Path("/etc/drbd.conf")
DRBD_D = Path("/etc/drbd.d")
OPENVPN = Path("/etc/openvpn")

LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """What adopting does, and what that means."""

    adoption: Adoption
    steps: tuple[Action, ...]
    plan: tuple[str, ...]
    """The lines that a person has to agree to."""


def propose(names: Sequence[str], flavour: Flavour | None) -> Proposal | None:
    """How the named resources, or all, are adopted; None where nothing is left to adopt. Changes nothing.

    Raises Refused with every reason, UsageError for a name that DRBD's files do not have.
    """
    found = _look()
    adoption = decide(found, names, flavour)
    if not adoption.resources:
        return None
    site = config.parse(adoption.config)
    wanted = render(site, _credentials(site, adoption), found.hostname)
    left = tuple(steps(found, adoption, wanted, _progress(adoption, wanted)))
    after = _tried(found, left, {resource.name for resource in adoption.resources})
    return Proposal(adoption, left, tuple(explain(adoption, left, found.dump, after)))


def adopt(proposal: Proposal, names: Sequence[str], flavour: Flavour | None, tell: Callable[[str], None]) -> None:
    """Do what was proposed; the same command again finishes it. Raises Refused where it is another thing by now."""
    with files.lock("site", LOCK_SECONDS):
        if propose(names, flavour) != proposal:
            raise Refused("The machine has changed since the plan was made, and nothing was done.", "Run adopt again.")
        begun = [journal.begin("adopt", resource.name, {}) for resource in proposal.adoption.resources]
        for name in proposal.adoption.standalone:
            # Before anything of ours knows it, and connects it.
            reason = "it was StandAlone when it was adopted, and whether on purpose could not be seen"
            journal.hold(name, reason, frozenset({Forbidden.CONNECT}), "disconnect")
        for peer in proposal.adoption.secrets:
            keys.directory(peer)
        site = config.parse(proposal.adoption.config)
        for step in proposal.steps:
            tell(describe(step))
            execute(step, site)
        for operation in begun:
            journal.end(operation)


def _look() -> Found:
    try:
        return _found()
    except ValueError as error:
        raise OffsiteError(f"What a program has printed is not understood: {error}.") from error


def _found() -> Found:
    dump = _read(DRBD_CONF)
    running = _running()
    volumes = lvm.parse_report(run(lvm.REPORT).stdout)[0]
    return Found(
        hostname=os.uname().nodename,
        config=files.read(config.PATH),
        dump=dump,
        files={f"/etc/drbd.d/{name}": text for name, text in _texts(DRBD_D.glob("*")).items()},
        running=running,
        attached=_attached() if running else {},
        volumes=frozenset(volumes),
        identities=_identities(dump.values(), volumes),
        fstab=files.read(half.FSTAB) or "",
        addresses=iproute.parse_addresses(run(iproute.ADDRESSES).stdout),
        lines={
            f"/etc/openvpn/{path.relative_to(OPENVPN)}": openvpn.parse_setup(files.read(path) or "")
            for path in sorted(OPENVPN.rglob("*.conf"))
        },
        secrets={path.parent.name: (files.read(path) or "").strip() for path in keys.ROOT.glob("*/drbd.secret")},
        under_way=frozenset(o.resource for o in journal.operations().values() if o.verb == "adopt"),
    )


def _texts(paths: Iterable[Path]) -> dict[str, str]:
    """The texts of files, by name, in its order."""
    return {path.name: files.read(path) or "" for path in sorted(paths) if path.is_file()}


def _read(root: Path) -> dict[str, DumpedResource]:
    """DRBD's configuration from its root file on, by today's parser or else by that of 8.3 (Refused)."""
    done = run(drbd_dump.dump(str(root)), accept=None)
    if done.returncode == 0:
        return drbd_dump.parse(done.stdout)
    old = run(drbd_dump.dump_83(str(root)), accept=None)
    if old.returncode == 0:
        return drbd_dump.parse(old.stdout)
    raise _unreadable("cannot read DRBD's configuration", drbd_dump.complaint(done.stderr))


def _unreadable(what: str, complaint: str) -> Refused:
    how_to = " DRBD's word for csum-alg is csums-alg; the how-to has it wrong." if "'csum-alg'" in complaint else ""
    return Refused(
        f"drbdadm {what}: {complaint}",
        f"Correct that line; what runs is not touched by it. Then run adopt again.{how_to}",
    )


def _running() -> Mapping[str, DrbdResource]:
    if not drbd.parse_proc(files.read(host.PROC_DRBD) or "").version:
        return {}
    return drbd.parse_events(run(drbd.EVENTS).stdout.splitlines())


def _attached() -> dict[str, tuple[Volume, ...]]:
    done = run(drbd_dump.RUNNING, accept=None)
    if done.returncode:  # what it has printed may hold a secret
        raise ToolFailed("drbdsetup show has failed, so what runs cannot be compared with DRBD's files.")
    return drbd_dump.parse_running(done.stdout)


def _identities(
    dumped: Iterable[DumpedResource], volumes: Mapping[VolumeName, LogicalVolume]
) -> dict[VolumeName, dict[str, str]]:
    """What is on the volumes below this machine's resources."""
    halves = [resource.half_of(os.uname().nodename) for resource in dumped]
    disks = {volume.disk for here in halves if here for volume in here.volumes}
    found = {}
    for disk in disks:
        with suppress(ValueError):
            name = VolumeName.parse(disk)
            if name in volumes and volumes[name].active:
                found[name] = host.identity_below(name)
    return found


def _credentials(site: Site, adoption: Adoption) -> Mapping[str, Credentials]:
    """As they will be, with the secrets that are taken over."""
    known = keys.credentials(site)
    return {
        peer: replace(theirs, drbd_secret=adoption.secrets.get(peer, theirs.drbd_secret))
        for peer, theirs in known.items()
    }


def _progress(adoption: Adoption, wanted: Sequence[Rendered]) -> Progress:
    names = [resource.name for resource in adoption.resources]
    return Progress(
        files=current(tuple(file.path for file in wanted)),
        kept=_texts((journal.STATE / "adopted").glob("*")),
        enabled=frozenset(name for name in names if host.unit_is("enabled", systemd.resource_unit(name))),
        watched=host.unit_is("active", WATCHER),
        starters=tuple(unit for unit in other_starters(adoption) if host.unit_is("enabled", unit)),
    )


def _tried(found: Found, left: Sequence[Action], names: Collection[str]) -> dict[str, DumpedResource]:
    """What drbdadm reads when the steps were taken, tried on a copy.

    Raises Refused where it would not read it, and where it would read anything else of a resource not in ``names``.
    """
    texts = dict(found.files)
    for step in left:
        match step:
            case WriteFile(path=path, text=text) if path.startswith("/etc/drbd.d/"):
                texts[path] = text
            case Run(argv=("mv", _, old, new)):
                texts[new] = texts.pop(old)
    with tempfile.TemporaryDirectory(prefix="drbd-offsite-") as scratch:
        (Path(scratch) / "drbd.d").mkdir()
        for path, text in texts.items():
            files.write(Path(scratch) / "drbd.d" / Path(path).name, text, 0o600)
        root = Path(scratch) / "drbd.conf"
        # What it includes by absolute paths is the copy, too.
        files.write(root, (files.read(DRBD_CONF) or "").replace(f"{DRBD_D}/", f"{scratch}/drbd.d/"), 0o600)
        done = run(drbd_dump.dump(str(root)), accept=None)
        if done.returncode != 0:
            complaint = drbd_dump.complaint(done.stderr).replace(scratch, "/etc")
            raise _unreadable("would not read what DRBD's configuration becomes", complaint)
        after = drbd_dump.parse(done.stdout)
    lost = found.dump.keys() - after.keys()
    if lost:
        raise Refused(
            f"drbdadm would not find {', '.join(sorted(lost))} in files of the names that ours have.",
            'Have /etc/drbd.conf include "drbd.d/*.res", as drbd-utils ships it, and run adopt again.',
        )
    changed = [name for name, dumped in found.dump.items() if name not in names and after[name] != dumped]
    if changed:
        raise Refused(
            f"drbdadm would read other options than now for {', '.join(changed)}, which would not be adopted.",
            "See what the files of the others say beside their own section, and move that to "
            "/etc/drbd.d/global_common.conf; then run adopt again.",
        )
    return after
