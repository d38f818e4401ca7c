"""``doctor``: everything that must hold, and the remedy for what does not."""

import argparse
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

from .. import alert, config, keys
from ..errors import ExitCode, ToolFailed
from ..host import survey
from ..model import Site
from ..operations.apply import outdated_files
from ..plan.examine import Facts, examine, units
from ..render import HANDLER
from ..run import run as run_program
from ..tools import iproute, systemd

_VERSIONS = {
    "drbd-utils": (("drbdadm", "--version"), r"DRBDADM_VERSION=(\S+)"),
    "openvpn": (("openvpn", "--version"), r"OpenVPN (\S+)"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the findings as a JSON list")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    findings = list(examine(site, survey(site), _facts(site)))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    elif not findings:
        print("Everything that was checked is as it must be.")
    else:
        print("\n".join(f"- {finding.what}\n  {finding.remedy}" for finding in findings))
    return ExitCode.FAILED if findings else ExitCode.DONE


def _facts(site: Site) -> Facts:
    # A word for each unit, in their order; none at all where systemd does not run.
    wanted = units(site)
    states = run_program(systemd.systemctl("is-active", *wanted), accept=None).stdout.split()
    active = {unit for unit, state in zip(wanted, states, strict=False) if state == "active"}
    enrolled = [peer for peer in site.peers.values() if peer.enrolled]
    return Facts(
        versions={tool: found for tool in _VERSIONS if (found := _version(tool))},
        inactive=frozenset(wanted) - active,
        readable_keys=tuple(str(path) for path in sorted(keys.ROOT.rglob("*")) if _private(path)),
        outdated=tuple(outdated_files(site)),
        silent_peers=frozenset(
            peer.name
            for peer in enrolled
            if run_program(iproute.ping(site.address_there(peer), seconds=3), accept=None).returncode != 0
        ),
        handler_runs=os.access(HANDLER, os.X_OK),
        alerts=tuple(alert.troubles(site)),
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
