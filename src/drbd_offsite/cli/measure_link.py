"""``measure-link``: how fast the line to the backup is, and what follows for its configured speed."""

import argparse
import json
from typing import Any

from .. import config
from ..errors import ExitCode, Refused
from ..model import Peer
from ..operations import measure, speed
from ..plan import measure as plan
from ..plan.assess import amount
from ..plan.measure import Measured, Verdict
from .common import in_order, tell
from .progress import Line

SCHEMA = 1
"""Of the JSON, as status has one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "peer", nargs="?", default="", help="the peer's section in the configuration, if there are several"
    )
    parser.add_argument(
        "--apply", action="store_true", help="make what was measured the link_speed, at once and on both machines"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    to = measure.chosen(site, options.peer)
    line = Line()
    last = ""

    def progress(way: str, seconds: float, size_bytes: int) -> None:
        nonlocal last
        now = f"{way}: {seconds:.0f} s"
        if now != last:  # it is told far more often
            line.show(f"{now}, {amount(size_bytes)}")
            last = now

    with in_order():
        try:
            measured = measure.measure(site, to, progress)
        finally:
            line.end()
        print(json.dumps(_as_json(to, measured), indent=2) if options.json else _as_text(to, measured))
        if options.apply:
            _apply(to, measured)
        elif not options.json:
            print(plan.advice(to, measured))
    return ExitCode.DONE


def _apply(to: Peer, measured: Measured) -> None:
    if plan.judge(to.link_speed, measured) is Verdict.NOT_KNOWN:
        raise Refused(
            f"link_speed of {to.name} stays {to.link_speed}. {plan.LIMITED}",
            "If it does not, set link_speed in drbd-offsite.conf on both machines, and there: drbd-offsite render",
        )
    fits = plan.fitting(measured)
    speed.change(to.name, fits, tell)
    tell(f"link_speed of {to.name} is {fits} on both machines")


def _as_text(to: Peer, measured: Measured) -> str:
    rows = {
        f"to {to.name}": f"{plan.rounded(measured.there)} Mbit/s",
        f"from {to.name}": f"{plan.rounded(measured.here)} Mbit/s",
        "round trip": f"{measured.round_trip * 1000:.1f} ms",
        "configured": f"{to.link_speed} Mbit/s (link_speed)",
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join([*lines, "What was being written meanwhile went on, and is not counted in."])


def _as_json(to: Peer, measured: Measured) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "peer": to.name,
        "at": measured.at,
        "to_peer_mbit": round(measured.there, 3),
        "from_peer_mbit": round(measured.here, 3),
        "round_trip_ms": round(measured.round_trip * 1000, 3),
        "link_speed": to.link_speed,
        "verdict": plan.judge(to.link_speed, measured),
        "fitting": plan.fitting(measured),
    }
