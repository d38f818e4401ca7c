"""``measure-link --apply`` on the server, and what it asks of the backup: the speed of their line, on both at once.

As in tune.py the files come first on each machine, then the kernel, and the configuration last, so that each step can
be taken again.
"""

from collections.abc import Callable

from .. import config, journal, messages
from ..execute import execute
from ..model import Flavour, Site
from ..plan import guards
from ..plan.actions import AskPeer, describe
from . import schedule
from .apply import apply, config_text, save
from .half import locked, silent
from .tune import look

VERB = "link-speed"

Tell = Callable[[str], None]


def change(name: str, link_speed: int, tell: Tell) -> None:
    """Give the line to a peer that speed on both machines, or finish doing so.

    Raises Refused and PeerUnreachable before anything is begun. What fails after that leaves it unfinished.
    """
    guards.enforce(guards.flavour(config.load(), Flavour.SERVER, "measure-link"))
    with locked():
        site = config.load()
        look(site)
        _ask(site, name, messages.SetSpeed(link_speed, only_check=True), tell)
        operation = journal.begin(VERB, name, {"link_speed": link_speed})
        _ask(site, name, messages.SetSpeed(link_speed, only_check=False), tell)
        _settle(name, link_speed, tell)
        journal.end(operation)


def _ask(site: Site, name: str, request: messages.SetSpeed, tell: Tell) -> None:
    action = AskPeer(name, request, f"its link_speed is to be {request.link_speed} too")
    if not request.only_check:
        tell(describe(action))
    execute(action, site)


def _settle(name: str, link_speed: int, tell: Tell) -> None:
    """All of it on this machine."""
    assignment: dict[str, str | None] = {f"peers.{name}.link_speed": str(link_speed)}
    after = config.parse(config.updated(config_text(), assignment))
    for path in apply(after):
        tell(f"write {path}  # link_speed is {link_speed} now")
    # Looked at after the files are there: what is attached from now on has read them.
    for step in schedule.remaining(after, look(after)):
        tell(describe(step))
        execute(step, after)
    save(assignment)
    journal.record(VERB, "", f"link_speed of {name} is {link_speed} now.")


def follow(site: Site, requester: str, request: messages.SetSpeed) -> messages.Done:
    """The backup's part: the same request again does the same again. Raises Refused."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "set-speed"))
    with locked():
        look(config.load())
        if not request.only_check:
            _settle(requester, request.link_speed, silent)
    return messages.Done()
