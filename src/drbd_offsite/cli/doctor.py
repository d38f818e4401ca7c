"""``doctor``: everything that must hold, and the remedy for what does not."""

import argparse
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from .. import alert, config, keys, peer, protocol
from ..errors import ExitCode, OffsiteError, ToolFailed
from ..host import metadata_found, survey
from ..model import MetadataPlace, Peer, Site
from ..observed import Host
from ..operations.apply import outdated_files
from ..plan.diagnosis import Finding, Severity
from ..plan.examine import Facts, PeerState, examine, units
from ..plan.examine_resources import free_minor, unowned_slots
from ..render import HANDLER
from ..run import run as run_program
from ..tools import drbd, iproute, lvm_filter, systemd

LVM_DEVICES_FILES = Path("/etc/lvm/devices")

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

    # A word for each unit, in their order; none at all where systemd does not run.
    wanted = units(site)
    states = run_program(systemd.systemctl("is-active", *wanted), accept=None).stdout.split()
    active = {unit for unit, state in zip(wanted, states, strict=False) if state == "active"}
    enrolled = [to for to in site.peers.values() if to.enrolled]
    silent = frozenset(
        to.name
        for to in enrolled
        if run_program(iproute.ping(site.address_there(to), seconds=3), accept=None).returncode != 0
    )
    versions = {tool: found for tool in _VERSIONS if (found := _version(tool))}
    adjustable = site.resources and host.drbd_version and "drbd-utils" in versions
    return Facts(
        versions=versions,
        inactive=frozenset(wanted) - active,
        readable_keys=tuple(str(path) for path in sorted(keys.ROOT.rglob("*")) if _private(path)),
        outdated=tuple(outdated_files(site)),
        silent_peers=silent,
        handler_runs=os.access(HANDLER, os.X_OK),
        alerts=tuple(alert.troubles(site)),
        peers={to.name: _state(site, to) for to in enrolled if to.name not in silent},
        adjustments=seen(_adjustments, ()) if adjustable else (),
        lvm=seen(_lvm, None),
        unowned=seen(lambda: _unowned(site, host), {}),
        problems=tuple(problems),
    )


def _private(path: Path) -> bool:
    return path.suffix not in (".pub", ".crt") and path.is_file() and bool(path.stat().st_mode & 0o077)


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
        greeting = peer.ask(site, to, protocol.Hello(), protocol.Greeting, seconds=ANSWER_SECONDS)
    except OffsiteError as error:
        return error
    middle = before + (datetime.now(UTC) - before) / 2
    return PeerState(greeting.drbd_version, (datetime.fromisoformat(greeting.now) - middle).total_seconds())


def _adjustments() -> tuple[drbd.Adjustment, ...] | None:
    done = run_program(drbd.DRY_ADJUST, accept=None)
    return None if done.returncode else drbd.parse_adjustments(done.stdout.splitlines())


def _lvm() -> lvm_filter.Settings | None:
    settings = lvm_filter.parse(run_program(lvm_filter.EFFECTIVE, accept=None).stdout)
    file = settings.devices_file
    return None if file and (LVM_DEVICES_FILES / file).exists() else settings


def _unowned(site: Site, host: Host) -> dict[MetadataPlace, drbd.Identifiers]:
    minor = free_minor(site, host)
    found = {slot: metadata_found(slot, minor) for slot in unowned_slots(site, host)}
    return {slot: identifiers for slot, identifiers in found.items() if identifiers is not None}
