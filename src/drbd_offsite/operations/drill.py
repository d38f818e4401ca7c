"""``drill``: whether a copy could be used after a disaster, tried on a snapshot of it, with evidence."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from .. import alert, files, hooks, journal, peer
from ..errors import OffsiteError, Refused, ToolFailed
from ..host import observe
from ..messages import MachineReport, Report
from ..model import Flavour, Resource, Site
from ..observed import Host
from ..plan import drill as plan
from ..plan import drilled, guards
from ..plan.assess import duration
from ..plan.drill import Line, Result, Seen
from ..plan.drilled import Count, Outcome
from ..plan.look import Check, Verdict
from ..render import drill_page
from ..run import bounded
from ..tools import contained
from . import inspect
from .inspect import Look

HOOKS = "drill.d"
"""The directory of scripts, below the settings'."""

KEPT = 100
"""Results a resource."""

ANSWER_SECONDS = 15.0

Tell = Callable[[str], None]


def drill(site: Site, resource: Resource, tell: Tell) -> Result:
    """Look into a resource's copy, and put on disk what was found.

    Raises Refused where this is not the backup, and Busy where another look at it is open: neither is a result.
    """
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "drill"))
    begun, clock = journal.now(), time.monotonic()
    before = _line(site, resource)
    known = journal.remembered(drilled.KIND).get(resource.name) or drilled.first_seen(begun)
    earlier = drilled.counted(known)
    seen: Seen | None = None
    checks: list[Check] = []
    count: Count | None = None
    try:
        with inspect.opened(site, resource, "drill", tell) as look:
            seen = Seen(look.source, look.taken, look.as_of, look.fstype, look.size_bytes)
            checks += look.checks
            if look.directory is not None:
                tell(f"{resource.name}: counting files")
                check, count = _counted(look.directory, site.drill_minutes, earlier)
                checks.append(check)
                checks += _commands(site, resource, look, look.directory, tell)
            outcome, reason = plan.conclude(checks, inspect.exhausted(look))
    except inspect.Busy:
        raise
    except (Refused, ToolFailed) as error:
        outcome, reason = Outcome.UNTESTED, f"{error.message} {error.hint}".strip()
    except (KeyboardInterrupt, SystemExit):
        journal.record("drill-broken-off", resource.name, "A drill was broken off; it says nothing about the copy.")
        raise
    if outcome is Outcome.UNTESTED:
        count = None
    result = Result(
        resource=resource.name,
        hostname=os.uname().nodename,
        peer=resource.peer,
        volume=str(resource.here.volume),
        outcome=outcome,
        reason=reason,
        begun=begun,
        ended=journal.now(),
        seconds=int(time.monotonic() - clock),
        line_before=before,
        line_after=_line(site, resource),
        seen=seen,
        checks=tuple(checks),
        count=count,
        count_before=earlier[1] if earlier else None,
        counted_before=earlier[0] if earlier else "",
    )
    _keep(result)
    return result


def follow_up(site: Site, host: Host) -> None:
    """A duty of the watcher on the backup: from when a resource is seen first, its drills are waited for."""
    if site.flavour is not Flavour.BACKUP:
        return
    known = journal.remembered(drilled.KIND)
    for name in site.resources.keys() - known.keys():
        journal.remember(drilled.KIND, name, drilled.first_seen(journal.now()))
    # What is being renamed or removed is known by its old name until that has ended.
    unfinished = {operation.resource for operation in host.operations.values()}
    for gone in known.keys() - site.resources.keys() - unfinished:
        journal.forget(drilled.KIND, gone)


def _line(site: Site, resource: Resource) -> Line:
    seen = observe(site).drbd.get(resource.name)
    lacking = None
    if seen is not None and seen.connected:
        try:
            report = peer.ask(site, site.peers[resource.peer], Report(), MachineReport, seconds=ANSWER_SECONDS)
        except OffsiteError:
            pass  # its lag is then not known
        else:
            lacking = next((r.changed_bytes for r in report.resources if r.name == resource.name), None)
    return plan.line(seen, lacking)


def _counted(directory: Path, minutes: int, earlier: tuple[str, Count] | None) -> tuple[Check, Count | None]:
    """All of a tree: without links, and with the sizes that files claim. Where it cannot be read it is damaged."""
    begun, files_there, size = time.monotonic(), 0, 0
    waiting = [str(directory)]
    try:
        while waiting:
            if time.monotonic() - begun > minutes * 60:
                text = f"Not all files were counted: after {duration(minutes * 60)} there were {files_there:,} so far."
                return Check("files", Verdict.FINDING, text, minutes * 60), None
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files_there += 1
                        size += entry.stat(follow_symlinks=False).st_size
    except OSError as error:
        where = str(error.filename).removeprefix(str(directory)) or "/"
        return Check("files", Verdict.BAD, f"{where} cannot be read: {error.strerror}."), None
    now = Count(files_there, size)
    check = plan.compared(earlier[1] if earlier else None, earlier[0] if earlier else "", now)
    return Check(check.name, check.verdict, check.text, int(time.monotonic() - begun)), now


def _commands(site: Site, resource: Resource, look: Look, directory: Path, tell: Tell) -> Iterator[Check]:
    """What the admin has a drill run. The first word names it: the others may have a password in them."""
    variables = {
        "DRBD_OFFSITE_RESOURCE": resource.name,
        "DRBD_OFFSITE_DIRECTORY": str(directory),
        "DRBD_OFFSITE_AS_OF": look.as_of,
    }
    wanted = [(f"command {resource.drill_command[0]}", resource.drill_command)] if resource.drill_command else []
    for path, why in hooks.scripts(alert.SETTINGS / HOOKS):
        if why:
            yield Check(f"{HOOKS}/{path.name}", Verdict.UNKNOWN, f"It is not run: {why}.")
        else:
            wanted.append((f"{HOOKS}/{path.name}", (str(path),)))
    for name, argv in wanted:
        tell(f"{resource.name}: {name}")
        yield _command(name, argv, directory, variables, site.drill_minutes)


def _command(name: str, argv: tuple[str, ...], directory: Path, variables: dict[str, str], minutes: int) -> Check:
    begun = time.monotonic()
    ended = bounded(contained.enclosed(argv), directory=str(directory), variables=variables, seconds=minutes * 60.0)
    lines = ended.lines[-inspect.MOST_LINES :]
    seconds = int(time.monotonic() - begun)
    if ended.returncode is None:
        return Check(
            name, Verdict.BAD, f"It was stopped after {duration(minutes * 60)} (drill_minutes).", seconds, lines
        )
    if ended.returncode in contained.NOT_RUN:
        return Check(name, Verdict.UNKNOWN, f"It could not be run (exit code {ended.returncode}).", seconds, lines)
    if ended.returncode:
        return Check(
            name, Verdict.BAD, f"It says that the data is not good ({_how(ended.returncode)}).", seconds, lines
        )
    return Check(name, Verdict.GOOD, "It says that the data is good (exit code 0).", seconds, lines)


def _how(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"it was ended by signal {-code}"


def _keep(result: Result) -> None:
    """The evidence first: what is remembered leads to it."""
    stamp = datetime.fromisoformat(result.begun).strftime("%Y%m%dT%H%M%SZ")
    directory = journal.STATE / drilled.EVIDENCE / result.resource
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = plan.as_text(result)
    page = drill_page(result, plan.facts(result))
    for suffix, content in (
        ("txt", text + "\n"),
        ("html", page),
        ("json", json.dumps(plan.as_json(result), indent=2) + "\n"),
    ):
        files.write(directory / f"{stamp}.{suffix}", content, 0o600)
    for old in sorted({path.stem for path in directory.glob("[!.]*.json")})[:-KEPT]:
        for path in directory.glob(f"{old}.*"):
            path.unlink()
    known = journal.remembered(drilled.KIND).get(result.resource, {})
    entry = drilled.with_result(known, result.begun, result.outcome, result.reason, result.count)
    journal.remember(drilled.KIND, result.resource, entry)
    journal.record(
        "drill",
        result.resource,
        f"The drill {_ended(result)}: {result.reason}",
        outcome=result.outcome,
        evidence=str(directory / f"{stamp}.html"),
    )


def _ended(result: Result) -> str:
    words = result.outcome.in_words
    return words if result.outcome is Outcome.UNTESTED else f"has {words}"
