"""``status``: what a person wants to know, worst first; ``--json`` for programs."""

import argparse
import json
import sys
import time
from datetime import datetime
from typing import Any

from .. import config
from ..errors import ExitCode
from ..host import observe
from ..model import Flavour, Resource, Site, TunnelMode
from ..observed import DiskState, DrbdResource, Host, Operation, Role
from ..plan import drilled, slices
from ..plan.assess import Assessment, Level, assess, worth
from ..plan.pace import Verdict, pace
from ..remembered import LastDrill, Round
from .common import chosen, pace_json, resources_argument

SCHEMA = 1
"""Of the JSON; a number is only raised when something is taken away or changes its meaning."""

REFRESH_SECONDS = 2.0


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--json", action="store_true", help="the same as JSON; drbd-offsite(8) has the schema")
    parser.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")


def run(options: argparse.Namespace) -> int:
    while True:
        site = config.load()
        host = observe(site)
        resources = chosen(site, options.resources)
        found = sorted((assess(site, host, r) for r in resources), key=lambda a: (-a.level, a.resource))
        text = json.dumps(as_json(site, host, found), indent=2) if options.json else as_text(site, host, found)
        if not options.watch:
            print(text)
            return exit_code(host, found)
        sys.stdout.write("\x1b[H\x1b[2J" + text + "\n" if sys.stdout.isatty() else text + "\n")
        sys.stdout.flush()
        time.sleep(REFRESH_SECONDS)


def exit_code(host: Host, found: list[Assessment]) -> ExitCode:
    """By the worst of it."""
    worst = max((a.level for a in found), default=Level.OK)
    if host.problems or host.operations:
        worst = Level.BROKEN
    return worst.exit_code


def as_text(site: Site, host: Host, found: list[Assessment]) -> str:
    blocks = [f"{site.flavour} {host.hostname}, " + "; ".join(_tunnels(site, host) or ["no peer enrolled yet"])]
    if (share := site.line_share(_now())) < 100:
        blocks.append(f"Resyncs may take {share} % of a line at this hour ([schedule]).")
    if problems := [f"Cannot see everything: {problem}" for problem in host.problems]:
        blocks.append("\n".join(problems))
    if lines := [unfinished(o) for o in host.operations.values() if o.resource not in site.resources]:
        blocks.append("\n".join(lines))
    blocks += [_block(site, host, site.resources[assessment.resource], assessment) for assessment in found]
    if not found:
        verb = "add /dev/GROUP/VOLUME here" if site.flavour is Flavour.SERVER else "add on the server"
        blocks.append(f"No volume is replicated yet: drbd-offsite {verb}.")
    return "\n\n".join(blocks)


def _now() -> datetime:
    """The hours of [schedule] are those of the clock on the wall."""
    return datetime.now().astimezone()


def unfinished(operation: Operation) -> str:
    return (
        f"{operation.resource}: {operation.verb} was begun at {operation.since} and is not finished; "
        f"run drbd-offsite {operation.finished_by} again to finish it."
    )


def _tunnels(site: Site, host: Host) -> list[str]:
    lines = []
    for peer in site.peers.values():
        address = site.address_here(peer)
        present = address in host.addresses
        kind = "line" if peer.tunnel.mode is TunnelMode.NONE else f"tunnel {peer.tunnel.device}"
        if not peer.enrolled:
            lines.append(f"{peer.name} is not enrolled yet (drbd-offsite invite)")
        else:
            lines.append(f"{kind} to {peer.name} ({peer.hostname}) {'is there' if present else 'is down'}")
    return lines


def _block(site: Site, host: Host, resource: Resource, assessment: Assessment) -> str:
    seen = host.drbd.get(resource.name)
    lines = [f"{resource.name}: {assessment.sentences[0] if assessment.sentences else ''}"]
    lines += [f"  {sentence}" for sentence in assessment.sentences[1:]]
    if seen is not None:
        device = seen.peer_device
        there = device.disk if device else DiskState.UNKNOWN
        role = seen.connection.role if seen.connection else Role.UNKNOWN
        lines.append(f"  copy here   {resource.here.volume}, {seen.role}: {worth(seen.disk)}")
        lines.append(f"  copy there  {resource.there.volume} on {resource.peer}, {role}: {worth(there)}")
        if at := host.complete.get(resource.name):
            lines.append(f"  complete    up to {at}: the copy {'there' if seen.role is Role.PRIMARY else 'here'}")
        known = pace(site, host, resource)
        if known is not None and known.verdict is not Verdict.UP_TO_DATE:
            lines.append(f"  pace        {known.sentence}")
        if compared := host.rounds.get(resource.name):
            lines.append(f"  compared    {slices.describe(compared, seen)}")
        if site.flavour is Flavour.SERVER:
            lines.append(f"  use it as   {resource.by_res}")
    if site.flavour is Flavour.BACKUP:
        lines.append(f"  last drill  {_last_drill(host.drills.get(resource.name))}")
    return "\n".join(lines)


def _last_drill(known: LastDrill | None) -> str:
    if known is None or not known.at:
        return "none yet (drbd-offsite-drill.timer does one each week, drbd-offsite drill at once)"
    passed = "" if known.passed in ("", known.at) else f"; the last one that has passed: {known.passed}"
    return f"{known.at}: {drilled.ended(known)}{passed}"


def as_json(site: Site, host: Host, found: list[Assessment]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "hostname": host.hostname,
        "flavour": site.flavour,
        "drbd_version": host.drbd_version,
        "problems": list(host.problems),
        "line_share_percent": site.line_share(_now()),
        "peers": [
            {
                "name": peer.name,
                "hostname": peer.hostname,
                "tunnel": peer.tunnel.mode,
                "device": peer.tunnel.device,
                "address_here": site.address_here(peer),
                "address_there": site.address_there(peer),
                "up": site.address_here(peer) in host.addresses,
            }
            for peer in site.peers.values()
        ],
        "operations": [{"verb": o.verb, "resource": o.resource, "since": o.since} for o in host.operations.values()],
        "resources": [_resource_json(site, host, assessment) for assessment in found],
    }


def _resource_json(site: Site, host: Host, assessment: Assessment) -> dict[str, Any]:
    resource = site.resources[assessment.resource]
    seen = host.drbd.get(resource.name)
    connection, device = (seen.connection, seen.peer_device) if seen else (None, None)
    progress = host.progress.get(resource.here.minor)
    return {
        "name": resource.name,
        "level": assessment.level.name.lower(),
        "sentences": list(assessment.sentences),
        "volume": str(resource.here.volume),
        "device": resource.here.device,
        "peer": resource.peer,
        "role": seen.role if seen else None,
        "peer_role": connection.role if connection else None,
        "disk": seen.disk if seen else None,
        "peer_disk": device.disk if device else None,
        "connection": connection.state if connection else None,
        "replication": device.replication if device else None,
        "out_of_sync_bytes": device.out_of_sync_bytes if device else None,
        "done_percent": progress.done_percent if progress else device.done_percent if device else None,
        "speed_bytes": progress.speed_bytes if progress else None,
        "finish_seconds": progress.finish_seconds if progress else None,
        "complete_as_of": host.complete.get(resource.name),
        "pace": pace_json(pace(site, host, resource)),
        "verify": _verify_json(site, host.rounds.get(resource.name), seen),
        "drill": _drill_json(site, host.drills.get(resource.name)),
        "holds": [
            {"reason": h.reason, "since": h.since, "forbids": sorted(h.forbids), "set_by": h.set_by}
            for h in host.holds.get(resource.name, ())
        ],
    }


def _verify_json(site: Site, known: Round | None, seen: DrbdResource | None) -> dict[str, Any] | None:
    if known is None:
        return None
    return {
        "since": slices.text(known.since) or None,
        "done_percent": slices.share(known, seen) if seen else None,
        "ended": slices.text(known.ended) or None,
        "overdue": slices.overdue(site, known),
    }


def _drill_json(site: Site, known: LastDrill | None) -> dict[str, Any] | None:
    if known is None:
        return None
    return {
        "at": known.at or None,
        "outcome": known.outcome or None,
        "passed": known.passed or None,
        "overdue": drilled.overdue(site, known),
    }
