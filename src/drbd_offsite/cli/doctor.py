"""``doctor``: everything that must hold, and the remedy for what does not."""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from .. import alert, config, files, hooks, journal, keys, messages, peer
from ..errors import ExitCode, OffsiteError, ToolFailed
from ..host import metadata_found, survey
from ..model import MetadataPlace, Peer, Site
from ..observed import Host
from ..operations import drill, repair, serve
from ..operations.apply import outdated_files
from ..plan import measure
from ..plan.congestion import first_sync
from ..plan.diagnosis import Finding, Severity
from ..plan.examine import DRBD_UTILS_UNIT, Facts, PeerState, enabled_units, examine, units
from ..plan.examine_resources import free_minor, unowned_slots
from ..render import HANDLER
from ..run import run as run_program
from ..tools import drbd, iproute, lvm_filter, systemd

LVM_DEVICES_FILES = Path("/etc/lvm/devices")
ETC = Path("/etc")
USERMODE_HELPER = Path("/sys/module/drbd/parameters/usermode_helper")
"""What the kernel calls for a resource's handlers, to the letter (drbd_main.c)."""

OWNERS = frozenset({0})
"""Who may have a say in what root runs, and may read secrets."""
TOP = Path("/")
"""From here down to the handler nobody else may have one."""

ANSWER_SECONDS = 30.0

_VERSIONS = {
    "drbd-utils": (("drbdadm", "--version"), r"DRBDADM_VERSION=(\S+)"),
    "openvpn": (("openvpn", "--version"), r"OpenVPN (\S+)"),
}
_T = TypeVar("_T")
_U = TypeVar("_U")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the findings as a JSON list")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    host = survey(site)
    findings = sorted(examine(site, host, _facts(site, host)), key=lambda finding: -finding.severity)
    print(_as_json(findings) if options.json else _as_text(findings))
    return findings[0].severity.exit_code if findings else ExitCode.DONE


def _as_json(findings: list[Finding]) -> str:
    return json.dumps([{"severity": str(f.severity), "what": f.what, "remedy": f.remedy} for f in findings], indent=2)


def _as_text(findings: list[Finding]) -> str:
    lines = [f"- {finding.severity}: {finding.what}\n  {finding.remedy}" for finding in findings]
    if not findings or findings[0].severity is Severity.NOTE:
        lines.insert(0, "Everything that was checked is as it must be." + " Good to know:" * bool(findings))
    return "\n".join(lines)


def _facts(site: Site, host: Host) -> Facts:
    problems: list[str] = []

    def seen(look: Callable[[], _T], otherwise: _U) -> _T | _U:
        try:
            return look()
        except (ToolFailed, ValueError) as error:
            problems.append(str(error))
            return otherwise

    enrolled = [to for to in site.peers.values() if to.enrolled]
    strangers = frozenset(to.name for to in enrolled if not (keys.ROOT / to.name / "peer_ssh.pub").exists())
    running, at_boot = units(site, strangers), enabled_units(site, strangers)
    # Last the one that need not be there: systemctl may end at such a one.
    enabled = _those("enabled", *at_boot, DRBD_UTILS_UNIT)
    silent = frozenset(
        to.name
        for to in enrolled
        if run_program(iproute.ping(site.address_there(to), seconds=3), accept=None).returncode != 0
    )
    versions = {tool: found for tool in _VERSIONS if (found := _version(tool))}
    adjustable = site.resources and host.drbd_version and "drbd-utils" in versions
    return Facts(
        versions=versions,
        inactive=frozenset(running) - _those("active", *running),
        disabled=frozenset(at_boot) - enabled,
        passes_us_by=DRBD_UTILS_UNIT in enabled,
        strangers=strangers,
        readable_keys=tuple(str(path) for path in _secret_files() if _readable(path)),
        outdated=tuple(outdated_files(site)),
        silent_peers=silent,
        handlers=tuple(_handlers()),
        alerts=tuple(alert.troubles(site)),
        scripts=tuple(_scripts()),
        peers={to.name: _state(site, to) for to in enrolled if to.name not in silent | strangers},
        measured=_measured(),
        adjustments=seen(lambda: _adjustments(site, host), ()) if adjustable else (),
        lvm=seen(_lvm, None),
        unowned=seen(lambda: _unowned(site, host), {}),
        problems=tuple(problems),
    )


def _measured() -> dict[str, measure.Measured]:
    known = journal.remembered(measure.KIND)
    return {name: found for name, entry in known.items() if (found := measure.from_entry(entry)) is not None}


def _those(state: str, *units: str) -> set[str]:
    """The units that systemd says are ``active`` or ``enabled``."""
    # A word for each unit, in their order; none at all where systemd does not run.
    words = run_program(systemd.systemctl(f"is-{state}", *units), accept=None).stdout.split()
    return {unit for unit, word in zip(units, words, strict=False) if word == state}


def _secret_files() -> Iterator[Path]:
    """Those with our keys, and DRBD's files that have its secret written in them."""
    yield from (path for path in sorted(keys.ROOT.rglob("*")) if path.suffix not in (".pub", ".crt"))
    for path in filter(Path.is_file, [ETC / "drbd.conf", *sorted(ETC.glob("drbd.d/*"))]):
        if re.search(r"^[^#\n]*\bshared-secret\s", files.read(path) or "", re.MULTILINE):
            yield path


def _readable(path: Path) -> bool:
    """Whether others than root may read a file."""
    if not path.is_file():
        return False
    status = path.stat()
    return status.st_uid not in OWNERS or bool(status.st_mode & 0o077)


def _handlers() -> Iterator[tuple[str, str]]:
    """Why the kernel may not reach our handler, or somebody else in its place, each with its remedy."""
    helper = files.read(USERMODE_HELPER)
    called = (helper or "").removesuffix("\n")
    if helper is not None and (Path(called).name != "drbdadm" or not os.access(called, os.X_OK)):
        what = (
            f"When something happens to a resource the kernel calls {called!r}, and not drbdadm. So no handler is run: "
            "nothing is kept before a resync, and nobody hears of a split brain or a bad disk."
        )
        remedy = (
            "grep -r usermode_helper /etc/modprobe.d /proc/cmdline shows who has set it; take that out. Until the next "
            f"boot: printf /sbin/drbdadm > {USERMODE_HELPER} (with echo a line break would belong to the name)."
        )
        yield what, remedy
    handler = Path(HANDLER)
    if not _executable(handler):
        yield "The handler that the kernel calls cannot be executed.", "Reinstall: apt reinstall drbd-offsite-common."
    for place in (handler, *handler.parents):
        if place.is_relative_to(TOP) and place.exists() and _open_to_others(place):
            yield (
                f"Others than root may change {place}, and with it the handler that the kernel runs as root.",
                f"chown root {place}; chmod go-w {place}",
            )


def _scripts() -> Iterator[tuple[str, str]]:
    """What an admin wants run beside alerts and will not be, each with its remedy."""
    for name in (serve.HOOKS, drill.HOOKS):
        for path, why in hooks.scripts(alert.SETTINGS / name):
            if why:
                yield f"{path} will not be run: {why}.", hooks.remedy(path)


def _executable(script: Path) -> bool:
    """Whether the kernel can run a script: itself, and the interpreter that its first line names."""
    first = (files.read(script) or "").partition("\n")[0]
    words = first.removeprefix("#!").split()
    return first.startswith("#!") and bool(words) and os.access(script, os.X_OK) and os.access(words[0], os.X_OK)


def _open_to_others(place: Path) -> bool:
    status = place.stat()
    return status.st_uid not in OWNERS or bool(status.st_mode & 0o022)


def _version(tool: str) -> str:
    argv, pattern = _VERSIONS[tool]
    try:
        match = re.search(pattern, run_program(argv, accept=None).stdout)
    except ToolFailed:
        return ""
    return match[1] if match else ""


def _state(site: Site, to: Peer) -> PeerState | OffsiteError:
    before = datetime.now(UTC)
    try:
        greeting = peer.ask(site, to, messages.Hello(), messages.Greeting, seconds=ANSWER_SECONDS)
    except OffsiteError as error:
        return error
    middle = before + (datetime.now(UTC) - before) / 2
    return PeerState(greeting.drbd_version, (datetime.fromisoformat(greeting.now) - middle).total_seconds())


def _adjustments(site: Site, host: Host) -> tuple[drbd.Adjustment, ...] | None:
    done = run_program(drbd.DRY_ADJUST, accept=None)
    if done.returncode:
        return None
    # What the schedule, a slice that is compared, and a first sync have told the kernel is in no file.
    whole_line = site.line_share(datetime.now().astimezone()) == 100
    ours = set() if whole_line and not any(map(repair.compares_a_slice, site.resources)) else {"disk-options"}
    if any(first_sync(host, resource) for resource in site.resources.values()):
        ours.add("net-options")
    found = drbd.parse_adjustments(done.stdout.splitlines())
    return tuple(adjustment for adjustment in found if adjustment.command not in ours)


def _lvm() -> lvm_filter.Settings | None:
    settings = lvm_filter.parse(run_program(lvm_filter.EFFECTIVE, accept=None).stdout)
    file = settings.devices_file
    return None if file and (LVM_DEVICES_FILES / file).exists() else settings


def _unowned(site: Site, host: Host) -> dict[MetadataPlace, drbd.Identifiers]:
    minor = free_minor(site, host)
    found = {slot: metadata_found(slot, minor) for slot in unowned_slots(site, host)}
    return {slot: identifiers for slot, identifiers in found.items() if identifiers is not None}
