"""The order of resyncs, where it changes under resources that are up: the kernel has to be told."""

from collections.abc import Iterator

from ..model import Site
from ..observed import Host, Operation
from ..render import resync_after, resync_order
from ..tools import drbd
from .actions import Note, Once, Run


def reordered(before: Site, after: Site) -> tuple[str, ...]:
    """The resources of both sites that wait for another one's resync in ``after`` than in ``before``.

    They come in the order of ``after``: told in it, each joins a chain that is right up to its head, so the kernel
    never sees a circle, which it would refuse (drbd_worker.c, drbd_resync_after_valid).
    """
    was, now = resync_after(before), resync_after(after)
    return tuple(
        name
        for peer in after.peers
        for name in resync_order(after, peer)
        if name in before.resources and was.get(name) != now.get(name)
    )


def tell_kernel(site: Site, name: str) -> Run:
    """The step after which an attached resource waits for what ``site`` says, or for nothing."""
    earlier = resync_after(site).get(name)
    minor = site.resources[earlier].here.minor if earlier else None
    why = f"its resync comes after that of {earlier} now" if earlier else "its resync comes first now"
    return Run(drbd.resync_after(site.resources[name].here.minor, minor), why)


def relink(site: Site, host: Host, operation: Operation, names: tuple[str, ...]) -> Iterator[Once]:
    """Tell the kernel of resources that wait for another one's resync, and note which are left (``relink``)."""
    for number, name in enumerate(names, 1):
        if name in site.resources and host.attached(name):
            step = tell_kernel(site, name)
            yield Once(step, Note(operation, "relink", list(names[number:]), step.why))
