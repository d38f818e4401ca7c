"""What ``set`` changes of a resource that is in use: which values there are, and what the kernel has to be told."""

from collections.abc import Iterator
from dataclasses import dataclass

from .. import config
from ..errors import ConfigError, UsageError
from ..model import TUNABLE, Resource, Site
from ..observed import Host, Operation
from ..render import resync_order
from ..tools import drbd
from .actions import Run
from .order import tell_kernel
from .schedule import resync_limits


@dataclass(frozen=True, slots=True)
class Change:
    """What an unfinished ``set`` has decided; it lives in the journal."""

    key: str
    value: str
    before: str
    """Of the same key, before anything was changed."""

    @classmethod
    def of(cls, operation: Operation) -> "Change":
        """What `dataclasses.asdict` of one put on disk."""
        return cls(**operation.parameters)  # type: ignore[arg-type]


def assignment(site: Site, name: str, key: str, value: str) -> dict[str, str | None]:
    """The change for `config.updated` that gives a resource's key a value; none where it has it, written or not."""
    return {} if current(site.resources[name], key) == value else {f"resources.{name}.{key}": value}


def current(resource: Resource, key: str) -> str:
    """A key's value as the configuration has it. Raises UsageError for a key that is not `TUNABLE`."""
    if key not in TUNABLE:
        raise UsageError(f"There is no {key[:80]!r} to set.", f"What can be set: {', '.join(TUNABLE)}.")
    return str(getattr(resource, key))


def checked(text: str, name: str, key: str, value: str) -> str:
    """A value for a resource's key in the configuration ``text``, as it is written there.

    Raises UsageError for a key or a value that is not allowed.
    """
    change = assignment(config.parse(text), name, key, value)
    try:
        site = config.parse(config.updated(text, change))
    except ConfigError as error:
        check = next(check for known, _, check in config.keys("resources") if known == key)
        raise UsageError(f"{key} cannot be {value[:80]!r}.", f"It is {config.allowed(check)}.") from error
    return current(site.resources[name], key)


def kernel(after: Site, host: Host, resource: Resource, key: str) -> Iterator[Run]:
    """What tells the kernel what ``after`` says. What is not attached now learns it when it is."""
    if key == "resync_rate" and host.attached(resource.name):
        wanted = resync_limits(after, resource)
        argv = drbd.resync_rate(resource.here.minor, *wanted)
        yield Run(argv, f"its resync has {wanted.max_rate} KiB/s at most now")
    if key == "priority":
        # The whole order: what an interrupted run has told of it cannot be seen.
        for name in resync_order(after, resource.peer):
            if host.attached(name):
                yield tell_kernel(after, name)
