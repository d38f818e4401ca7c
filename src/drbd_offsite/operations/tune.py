"""``set`` on the server, and ``tune``, what it asks of the backup: a key of a resource, changed while it is in use.

On each machine the files come first, then the kernel, and the configuration last: until then each step can be taken
again, and whoever comes after an interruption has nothing to know of it.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NoReturn

from .. import config, journal, messages, protocol
from ..errors import BadRequest, OffsiteError, PeerUnreachable, Refused, SystemFailed, UsageError
from ..execute import execute
from ..host import observe
from ..model import TUNABLE, Flavour, Resource, Site
from ..observed import Host
from ..plan import guards
from ..plan import tune as plan
from ..plan.actions import AskPeer, describe
from ..plan.tune import Change
from .apply import apply, config_text, save
from .half import locked, silent

Tell = Callable[[str], None]


def change(name: str, key: str, asked: str, tell: Tell) -> str:
    """Give a key another value on both machines, or finish doing so; or on neither. Returns the value as it is written.

    Raises UsageError, Refused and PeerUnreachable before anything is begun. If the backup is lost after that
    (PeerUnreachable again) it is unfinished: the same command goes on, and so does one with another value.
    """
    guards.enforce(guards.flavour(config.load(), Flavour.SERVER, "set"))
    with locked(name):
        site = config.load()
        resource = site.resources.get(name)
        if resource is None:
            raise Refused(f"There is no resource {name}.", f"Configured: {', '.join(site.resources) or 'none'}.")
        decided = _decide(site, resource, key, plan.checked(config_text(), name, key, asked))
        operation = journal.begin("set", name, asdict(decided))
        try:
            _ask(site, resource, decided, tell)
            _settle(name, key, decided.value, tell)
        except PeerUnreachable:
            raise
        except OffsiteError as error:
            _put_back(site, resource, decided, error, tell)
        except OSError as error:
            _put_back(site, resource, decided, SystemFailed(error), tell)
        journal.end(operation)
    return decided.value


def _decide(site: Site, resource: Resource, key: str, value: str) -> Change:
    """Everything that can be refused is refused here, with nothing changed on either machine."""
    name = resource.name
    host = look(site)
    decided = Change(key, value, plan.current(resource, key))
    for operation in host.operations.values():
        if operation.resource != name:
            continue
        if operation.verb != "set":
            raise Refused(
                f"{operation.finished_by} of {name} is not finished.", "Finish that first: drbd-offsite status"
            )
        earlier = Change.of(operation)
        if earlier.key != key:
            raise Refused(
                f"The {earlier.key} of {name} is being changed by an earlier command.",
                f"Finish that first: drbd-offsite set {name} {earlier.key} {earlier.value}",
            )
        decided = replace(earlier, value=value)
    request = messages.Tune(name, key, value, only_check=True)
    execute(AskPeer(resource.peer, request, "it must be possible there too"), site)
    return decided


def _put_back(site: Site, resource: Resource, failed: Change, error: OffsiteError, tell: Tell) -> NoReturn:
    """The old value on both machines. Raises OffsiteError: what has failed, and what is so now."""
    name, key, before = resource.name, failed.key, failed.before
    tell(f"{error.message} The old value is put back.")
    old = replace(failed, value=before)
    try:
        operation = journal.begin("set", name, asdict(old))
        _settle(name, key, before, tell)
        _ask(site, resource, old, tell)
    except (OffsiteError, OSError) as second:
        raise OffsiteError(
            f"{error.message} Putting the old value back has failed too: {second}",
            f"Nothing is lost; the two machines may differ in it until this has done its work: "
            f"drbd-offsite set {name} {key} {before}",
        ) from error
    journal.end(operation, "was put back")
    raise OffsiteError(f"{error.message} The {key} of {name} is {before} as before, on both machines.") from error


def _ask(site: Site, resource: Resource, decided: Change, tell: Tell) -> None:
    request = messages.Tune(resource.name, decided.key, decided.value, only_check=False)
    action = AskPeer(resource.peer, request, f"{decided.key} is to be {decided.value} on both machines")
    tell(describe(action))
    execute(action, site)


def hand_over(site: Site, resource: Resource, tell: Tell) -> None:
    """Give a backup whose half is new the values that this server has, where they are not the usual ones."""
    written = config.resource_keys(resource)
    for key in TUNABLE:
        if value := written.get(f"resources.{resource.name}.{key}"):
            _ask(site, resource, Change(key, value, value), tell)


def _settle(name: str, key: str, value: str, tell: Tell) -> None:
    """All of it on this machine."""
    assignment = plan.assignment(config.load(), name, key, value)
    after = config.parse(config.updated(config_text(), assignment))
    for path in apply(after):
        tell(f"write {path}  # {key} is {value} now")
    # Looked at after the files are there: what is attached from now on has read them.
    for step in plan.kernel(after, look(after), after.resources[name], key):
        tell(describe(step))
        execute(step, after)
    save(assignment)
    journal.record("set", name, f"{key} is {value} now.")


def look(site: Site) -> Host:
    host = observe(site)
    if host.blind:
        raise Refused(
            f"DRBD's state cannot be seen: {'; '.join(host.problems)}.", "drbd-offsite doctor says what to do about it."
        )
    return host


def tune(site: Site, requester: str, request: messages.Tune) -> messages.Done:
    """The backup's part of a peer's ``set``: the same request again does the same again."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "tune"))
    with locked(request.name):
        site = config.load()
        protocol.resource_of(site, requester, request.name)
        try:
            value = plan.checked(config_text(), request.name, request.key, request.value)
        except UsageError as error:
            raise BadRequest(f"{error.message} {error.hint}") from error
        look(site)
        if not request.only_check:
            _settle(request.name, request.key, value, silent)
    return messages.Done()
