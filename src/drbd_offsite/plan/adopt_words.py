"""What an adoption means, in words for a person who has to agree to it."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ..config import PATH
from ..tools import systemd
from ..tools.drbd_dump import DumpedResource
from .actions import Action, describe
from .adopt import Adoption
from .adopt_steps import KEPT
from .examine import DRBD_UTILS_UNIT

WIDTH = 110

_TOPICS = (
    (
        "A resync takes what writes leave of the line (link_speed); a rate in DRBD's files is where it begins.",
        ("resync-rate", "c-plan-ahead", "c-delay-target", "c-fill-target", "c-max-rate", "c-min-rate", "resync-after"),
    ),
    (
        "Where the line is too slow for what is written, the server does not wait, and the backup catches up later.",
        ("protocol", "on-congestion", "congestion-fill", "congestion-extents", "sndbuf-size", "rcvbuf-size"),
    ),
    (
        "Checksums spare a resync the blocks that are equal, and let drbd-offsite verify compare the copies.",
        ("csums-alg", "verify-alg", "data-integrity-alg"),
    ),
    (
        "After a split brain nothing is discarded without a person.",
        ("after-sb-0pri", "after-sb-1pri", "after-sb-2pri", "rr-conflict", "always-asbp"),
    ),
    (
        "How soon a dead line is noticed, and tried again.",
        ("timeout", "connect-int", "ping-int", "ping-timeout", "ko-count"),
    ),
    ("A disk with errors is given up, and somebody hears of it.", ("on-io-error",)),
)

_DEFAULTS = {
    "protocol": "C",
    "after-sb-0pri": "disconnect",
    "after-sb-1pri": "disconnect",
    "after-sb-2pri": "disconnect",
    "allow-two-primaries": "no",
}
"""What some of the next ones are where nobody sets them (drbd.conf(5))."""

_SAME_ON_BOTH = (*_DEFAULTS, "cram-hmac-alg", "csums-alg", "data-integrity-alg", "verify-alg")
"""Two machines that differ in one of these do not stay connected (drbd_receiver.c)."""


def explain(
    adoption: Adoption,
    steps: Sequence[Action],
    before: Mapping[str, DumpedResource],
    after: Mapping[str, DumpedResource],
) -> Iterator[str]:
    """The plan, line by line; ``before`` and ``after`` is DRBD's configuration as it is and as it will be."""
    names = [resource.name for resource in adoption.resources]
    yield f"This machine is adopted as the {adoption.flavour} of {', '.join(names)}; what runs goes on."
    yield from ("", f"New in {PATH}:")
    yield from (f"  {key} = {value}" for key, value in adoption.changes.items())
    if adoption.fstab.new:
        yield from ("", "New in /etc/fstab, with the lines that they replace in a comment above them:")
        yield from (f"  {line}" for line in adoption.fstab.new)
    yield from ("", "Steps:")
    yield from (f"  hold {name}  # it is StandAlone, and stays so" for name in adoption.standalone)
    yield from (f"  {describe(step)}" for step in steps)
    if adoption.standalone:
        yield ""
        yield from _wrapped(
            f"{', '.join(adoption.standalone)}: not connected, and DRBD does not try to (StandAlone). Whether a person "
            "wanted that, or a split brain or a lost line has left it so, cannot be seen. To connect may overwrite one "
            "of the two copies, so nothing does it by itself. When you are sure: drbd-offsite connect.",
            "",
        )
    yield from _options(adoption, before, after)
    yield from ("", "Left as it is:")
    for text in _left(adoption):
        yield from _wrapped(text)
    yield from ("", "Afterwards:")
    yield from _wrapped(
        f"drbd-offsite adopt on the {adoption.flavour.other} too. Then let the two machines get to know each other: "
        "drbd-offsite invite on the server, drbd-offsite join on the backup."
    )


def _options(
    adoption: Adoption, before: Mapping[str, DumpedResource], after: Mapping[str, DumpedResource]
) -> Iterator[str]:
    """What DRBD does otherwise, once for all resources of which it is the same."""
    pairs = {resource.name: (before[resource.name], after[resource.name]) for resource in adoption.resources}
    said: dict[tuple[str, ...], list[str]] = {}
    for name, pair in pairs.items():
        said.setdefault(tuple(_differences(*pair)), []).append(name)
    for lines, names in said.items():
        if lines:
            yield ""
            yield from _wrapped(
                "Nothing is disconnected or adjusted: DRBD keeps the options that it has until the resource is next "
                f"brought up (a reboot, or drbd-offsite down and up). What is different then, for {', '.join(names)}:",
                "",
            )
            yield from lines
    for note in dict.fromkeys(note for pair in pairs.values() for note in _notes(*pair)):
        yield from _wrapped(note, "")


def _differences(before: DumpedResource, after: DumpedResource) -> Iterator[str]:
    old, new = before.options, after.options
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    topics = [(topic, [name for name in names if name in changed]) for topic, names in _TOPICS]
    named = {name for _, names in topics for name in names}
    topics.append(("Also:", [name for name in changed if name not in named]))
    for topic, names in topics:
        if names:
            yield from _wrapped(topic)
            yield from _wrapped(", ".join(_change(name, old.get(name), new.get(name)) for name in names), "    ")


def _notes(before: DumpedResource, after: DumpedResource) -> Iterator[str]:
    old, new = before.options, after.options
    if before.handlers != after.handlers:
        lost = ", ".join(name for name in before.handlers if name not in after.handlers)
        yield (
            "DRBD's handlers are looked up in the file each time, so at once drbd-offsite hears of what happens"
            + (f", and what was called for {lost} no longer is." if lost else ".")
        )
    if differing := [n for n in _SAME_ON_BOTH if old.get(n, _DEFAULTS.get(n)) != new.get(n, _DEFAULTS.get(n))]:
        yield (
            f"Both machines must have the same {', '.join(differing)}, or DRBD drops the connection: adopt on both "
            "before either is restarted."
        )


def _change(name: str, old: str | None, new: str | None) -> str:
    if new is None:
        return f"{name} is not set (now {old})"
    return f"{name} {new}" + (f" (now {old})" if old is not None else "")


def _left(adoption: Adoption) -> Iterator[str]:
    for peer, path in adoption.lines.items():
        through = f" ({path}, and what starts it)" if path else ""
        yield (
            f"The line to {peer}{through}; tunnel = none says that it is there without us. For a tunnel of "
            "drbd-offsite's own, later: stop and disable the old one on both machines, set tunnel and reachable_as in "
            f"[peers] [[{peer}]] on the server, invite and join. Replication is interrupted for so long."
        )
    yield "/etc/drbd.d/global_common.conf. What the resources' own files say counts before it."
    yield f"The files that were made by hand, in {KEPT} (until the packages are purged)."
    if adoption.left:
        left, ours = ", ".join(adoption.left), ", ".join(resource.name for resource in adoption.resources)
        yield (
            f"{DRBD_UTILS_UNIT}, for the sake of {left}. If it is enabled, it brings up {ours} at boot too: it "
            "connects past a hold, and while it waits for a backup that is gone, the data is not served. Adopt the "
            "others as well, or have something else bring them up (drbd@NAME.target); then: systemctl disable "
            f"{DRBD_UTILS_UNIT}."
        )
    yield (
        "What uses a device and is not in /etc/fstab. At boot it has to wait for the unit of the resource "
        f"({systemd.resource_unit('NAME')}). A device keeps its number (/dev/drbd0); udev's link to it is "
        "/dev/drbd/by-res/NAME/0, and names that only the old file gave it are gone at the next boot."
    )


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
