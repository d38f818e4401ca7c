"""The last of the watcher's duties: see what a person has to be told, put it into the outbox, have it delivered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .. import alert, files, journal
from ..model import Site
from ..observed import Hold, Host
from ..plan.alerts import decide
from ..plan.conditions import conditions
from ..run import run
from ..tools import systemd
from .report import LOST

KIND, NAME = "alerts", "sent"
"""Under which is remembered what was said (`journal.remembered`)."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

UNIT = "drbd-offsite-alert.service"
"""A unit of its own delivers: mail programs are setuid or setgid, which the watcher's own unit does not allow, the
watcher must not wait for them, and of a unit there is never more than one."""


def review(site: Site, host: Host) -> None:
    """Raises ToolFailed where the delivery cannot be started; what is in the outbox stays there."""
    now = datetime.now(UTC)
    host = replace(host, holds=_holds(host))
    before = journal.remembered(KIND).get(NAME, {})
    messages, after = decide(
        conditions(site, host, journal.remembered(LOST)),
        before,
        now,
        remind=timedelta(hours=site.remind_hours),
        boot=(files.read(BOOT_ID) or "").strip(),
        sure=not host.blind,
    )
    # First the outbox: after a crash in between somebody is told twice, and not never.
    posted = [alert.post(message) for message in messages]
    try:
        if after != before:
            journal.remember(KIND, NAME, after)
    except OSError:  # a full disk: what cannot be remembered would be told again at each look
        for name in posted:
            alert.withdraw(name)
        raise
    for message in messages:
        resource = message.key.partition(" ")[0]
        concerned = resource if resource in site.resources else ""
        journal.record("alert", concerned, message.subject, kind=message.kind, key=message.key)
    if alert.due(now):
        run(systemd.systemctl("start", "--no-block", UNIT))


def _holds(host: Host) -> dict[str, tuple[Hold, ...]]:
    """As the duties before this one have left them: they may have found out why something is held.

    What was set since they looked is left for the next look, when they have seen it too.
    """
    seen = {(hold.resource, hold.set_by) for holds in host.holds.values() for hold in holds}
    return {
        name: tuple(hold for hold in holds if (name, hold.set_by) in seen) for name, holds in journal.holds().items()
    }
