"""Handing alerts to people: an outbox on disk, and the channels that empty it.

A message stays in the outbox until each channel that there is has taken it, for a week at most. Nobody has to be
reachable when it is put there.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import files, hooks, journal
from .errors import OffsiteError, ToolFailed
from .model import Site
from .plan.alerts import Kind, Message
from .run import run

SETTINGS = Path("/etc/drbd-offsite")
SENDMAIL = Path("/usr/sbin/sendmail")
"""Debian Policy 11.6: every mail transport agent has it, with -i and -t."""
APPRISE = Path("/usr/bin/apprise")

OUTBOX = "outbox"
CHANNEL_SECONDS = 60.0
"""For one message to one channel."""

KEPT = timedelta(days=7)
FIRST_PAUSE = timedelta(minutes=1)
"""After a try in which a channel has failed; it doubles up to `LONGEST_PAUSE`."""
LONGEST_PAUSE = timedelta(hours=1)
STUCK_TRIES = 3
"""After so many it is more than a passing fault."""

NOBODY = "Nobody can be told of an alert: there is no program to mail with, no apprise.conf and no script in alert.d."
CHANNELS = (
    "Install a program that mails (apt install dma) and set alert_address in drbd-offsite.conf; or install apprise "
    "and write /etc/drbd-offsite/apprise.conf; or put a script into /etc/drbd-offsite/alert.d. Then: "
    "drbd-offsite test-alert"
)

Command = tuple[tuple[str, ...], str]
"""What is run for a message, and what it gets on its standard input."""


@dataclass(frozen=True, slots=True)
class Channel:
    name: str
    """Of those that have taken a message: remembered by it."""
    command: Callable[[Message], Command]
    discreet: bool = True
    """What the program says may be shown. apprise's may not: it has URLs in it, and those have passwords."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in the outbox."""

    name: str
    message: Message
    taken: tuple[str, ...]
    """The channels that have it."""
    tries: int
    next: datetime


def post(message: Message) -> str:
    """Put a message into the outbox, on disk when this returns; the name by which it can be withdrawn."""
    letter = Letter(f"{time.time_ns():020d}", message, (), 0, _instant(message.at))
    _keep(letter)
    return letter.name


def withdraw(name: str) -> None:
    journal.forget(OUTBOX, name)


def waiting() -> list[Letter]:
    """What is in the outbox, oldest first."""
    return [letter for name, entry in journal.remembered(OUTBOX).items() if (letter := _letter(name, entry))]


def due(now: datetime) -> bool:
    """Whether it is time to try. One that is due takes all with it, so that they arrive in their order."""
    # The clock may have been set back since the time was noted.
    return any(letter.next <= now or letter.next > now + LONGEST_PAUSE for letter in waiting())


def deliver(site: Site, tell: Callable[[str], None]) -> None:
    """Offer everything that waits to the channels that still lack it.

    Raises Refused while another is at it, and OffsiteError where the outbox cannot be written.
    """
    with files.lock("alerts", 0.0):
        there = channels(site)
        for path, why in refused():
            tell(f"{path} is not run: {why}.")
        hanging: set[str] = set()
        try:
            for letter in waiting():
                if not there and not letter.tries:
                    tell(f"{letter.message.subject}: {NOBODY}")
                _hand_out(letter, there, hanging, tell)
        except OSError as error:
            raise OffsiteError(f"The outbox cannot be written: {error}.", f"Make room for {journal.STATE}.") from error


def _hand_out(letter: Letter, there: list[Channel], hanging: set[str], tell: Callable[[str], None]) -> None:
    now = datetime.now(UTC)
    pause = min(FIRST_PAUSE * 2 ** min(letter.tries, 16), LONGEST_PAUSE)
    # That it was tried is on disk first: what cannot be noted afterwards would be sent again and again.
    letter = replace(letter, tries=letter.tries + 1, next=now + pause)
    _keep(letter)
    taken, lacking = list(letter.taken), []
    for channel in there:
        if channel.name in taken:
            continue
        # A channel that hangs is left alone for now; one that refuses a message may take the next.
        complaint = "it hangs" if channel.name in hanging else ""
        try:
            complaint = complaint or offer(channel, letter.message)
        except ToolFailed as error:
            hanging.add(channel.name)
            complaint = error.message
        if complaint:
            tell(f"{letter.message.subject}: {channel.name} has not taken it: {complaint}")
            lacking.append(channel.name)
        else:
            taken.append(channel.name)
    if there and not lacking:
        withdraw(letter.name)
    elif now - _instant(letter.message.at) > KEPT:
        withdraw(letter.name)
        by = ", ".join(lacking) or "anybody"
        journal.record("alert-dropped", "", f"Not taken by {by} for {KEPT.days} days: {letter.message.subject}")
    else:
        _keep(replace(letter, taken=tuple(taken)))


def offer(channel: Channel, message: Message) -> str:
    """Why a channel has not taken a message; empty if it has. Raises ToolFailed where it hangs or cannot start."""
    argv, text = channel.command(message)
    done = run(argv, stdin=text, timeout=CHANNEL_SECONDS, accept=None)
    if done.returncode == 0:
        return ""
    said = done.complaint if channel.discreet else f"to see why: {' '.join(argv[:2])} --body=test -vv"
    return f"exit code {done.returncode}; {said or 'it said nothing'}"


def channels(site: Site) -> list[Channel]:
    """Every way by which somebody can be reached."""
    found = []
    if site.alert_address and os.access(SENDMAIL, os.X_OK):
        found.append(Channel("mail", lambda message: _mail(site.alert_address, message)))
    if os.access(APPRISE, os.X_OK):
        found += [Channel(path.name, _apprise(path), discreet=False) for path in settings()]
    return found + [Channel(f"alert.d/{path.name}", _script(path)) for path, why in _scripts() if not why]


def settings() -> list[Path]:
    """apprise's files. Services in one file share their fate: if one of them fails, all get the message again."""
    return sorted(SETTINGS.glob("apprise*.conf"))


def refused() -> list[tuple[Path, str]]:
    """Scripts that would be run if it were safe, and why it is not."""
    return [(path, why) for path, why in _scripts() if why]


def troubles(site: Site) -> Iterator[tuple[str, str]]:
    """Why an alert may not reach anybody, and the remedy."""
    if not channels(site):
        yield NOBODY, CHANNELS
    for path, why in refused():
        yield f"{path} is not run: {why}.", hooks.remedy(path)
    for path in settings():
        if not os.access(APPRISE, os.X_OK):
            yield f"{path} is there, and apprise is not installed.", "apt install apprise"
        if path.stat().st_mode & 0o077:
            yield f"{path} can be read by others than root, and its URLs have passwords in them.", f"chmod go= {path}"
    stuck = [letter.message for letter in waiting() if letter.tries >= STUCK_TRIES]
    if stuck:
        yield (
            f"Alerts wait to be delivered, the oldest ({stuck[0].subject}) since {stuck[0].at}.",
            "drbd-offsite test-alert says which way fails, journalctl -u drbd-offsite-alert since when.",
        )


def _mail(address: str, message: Message) -> Command:
    # Late, because only whoever delivers needs it, and the watcher must stay small.
    from email.headerregistry import Address
    from email.message import EmailMessage
    from email.policy import default
    from hashlib import sha256

    hostname = os.uname().nodename
    # 7 bit: what is on the way is not known. Long lines stay whole where they may (RFC 5322, 2.1.1): root's mail is
    # often read with programs that decode nothing. The policy refuses a header with a line break in it.
    mail = EmailMessage(default.clone(cte_type="7bit", max_line_length=998 if message.text.isascii() else 78))
    mail["To"] = address
    mail["From"] = Address(f"drbd-offsite on {hostname}", "root")
    mail["Subject"] = " ".join(message.subject.split())
    mail["Date"] = datetime.fromisoformat(message.at)
    # The same at every try, so that one that was taken and not seen to be is known again.
    digest = sha256(f"{message.at} {message.kind} {message.key}".encode()).hexdigest()[:24]
    mail["Message-ID"] = f"<{digest}@{hostname}>"
    # RFC 3834: nobody's holiday notice has to answer it.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return (str(SENDMAIL), "-i", "-t"), mail.as_string()


_TYPES = {Kind.CLEARED: "success", Kind.TEST: "info"}


def _apprise(path: Path) -> Callable[[Message], Command]:
    """Without a body on its command line apprise reads it from standard input (seen with 1.2.0, Debian 12's)."""

    def command(message: Message) -> Command:
        kind = _TYPES.get(message.kind, "warning")
        options = (f"--config={path}", f"--title={message.subject}", f"--notification-type={kind}")
        return (str(APPRISE), *options), message.text

    return command


def _script(path: Path) -> Callable[[Message], Command]:
    return lambda message: ((str(path), message.kind, message.key), f"{message.subject}\n\n{message.text}")


def _scripts() -> Iterator[tuple[Path, str]]:
    return hooks.scripts(SETTINGS / "alert.d")


def _keep(letter: Letter) -> None:
    entry = asdict(letter.message) | {
        "taken": list(letter.taken),
        "tries": letter.tries,
        "next": letter.next.isoformat(timespec="seconds"),
    }
    journal.remember(OUTBOX, letter.name, entry)


def _letter(name: str, entry: object) -> Letter | None:
    """None for what cannot be understood; it is left where it is."""
    match entry:
        case {
            "kind": str(kind),
            "key": str(key),
            "subject": str(subject),
            "text": str(text),
            "at": str(at),
            "taken": list(taken),
            "tries": int(tries),
            "next": str(when),
        }:
            try:
                message = Message(Kind(kind), key, subject, text, _instant(at).isoformat())
                return Letter(name, message, tuple(map(str, taken)), tries, _instant(when))
            except ValueError:
                return None
    return None


def _instant(text: str) -> datetime:
    """Raises ValueError for what is none."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
