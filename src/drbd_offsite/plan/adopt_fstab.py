"""fstab on a machine that is taken over, in two steps.

What is mounted stays so and finds its device at a boot after either: before drbdadm's file becomes ours it loses the
names that udev takes from that file, and after our configuration names the resource it waits for our unit.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..model import Resource, VolumeName
from ..tools import filesystem, systemd
from ..tools.drbd_dump import Volume


@dataclass(frozen=True, slots=True)
class Fstab:
    renamed: str = field(repr=False)
    """With devices by their numbers instead of by links that go."""
    ordered: str = field(repr=False)
    """And with every mount of them after the unit of its resource."""
    new: tuple[str, ...] = ()
    """The lines in it that were not there."""


def links(resource: Resource, volume: Volume) -> frozenset[str]:
    """The names of a device that its own file gave it, and ours does not (drbdadm_main.c, sh_udev; 65-drbd.rules)."""
    by_disk = f"/dev/drbd/by-disk/{volume.disk.removeprefix('/dev/')}"
    return frozenset({f"/dev/drbd/by-res/{resource.name}", by_disk, volume.device}) - {"", *resource.device_names}


def become(text: str, resources: Mapping[Resource, Volume], identities: Mapping[VolumeName, dict[str, str]]) -> Fstab:
    """``resources`` with what their own files say of them, ``identities`` what blkid finds on their volumes."""
    renamed = text
    for resource, volume in resources.items():
        renamed = "".join(_renamed(renamed, links(resource, volume), resource.here.device))
    ordered = renamed
    for resource in resources:
        ordered = "".join(_ordered(ordered, resource, identities.get(resource.here.volume, {})))
    known = text.splitlines()
    new = (line for line in ordered.splitlines() if line not in known and not line.startswith("#"))
    return Fstab(renamed, ordered, tuple(new))


def _renamed(text: str, gone: frozenset[str], device: str) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        if filesystem.fstab_targets(line, gone):
            yield _kept(line)
            yield filesystem.fstab_replaced(line, line.split()[0], device)
        else:
            yield line


def _ordered(text: str, resource: Resource, identity: dict[str, str]) -> Iterator[str]:
    """What names the volume itself mounts the device too: at a boot it would be written to past DRBD."""
    lasting = resource.device_names
    volume = filesystem.fstab_sources(_paths(text, resource.here.volume), identity)
    before = ""
    for line in text.splitlines(keepends=True):
        device = line.split()[0] if filesystem.fstab_targets(line, lasting) else resource.here.device
        words = _moved(line, lasting | volume, device, systemd.resource_unit(resource.name))
        if words == line.split():
            yield line
        else:
            if not before.startswith(filesystem.WAS):
                yield _kept(line)
            yield " ".join(words) + "\n"
        before = line


def _moved(line: str, sources: frozenset[str], device: str, unit: str) -> list[str]:
    """The words of a line; one of ``sources`` mounts ``device`` after ``unit``, and for that asks for no other one."""
    if not filesystem.fstab_targets(line, sources):
        return line.split()
    words = filesystem.fstab_moved(line, sources, device, unit).splitlines()[-1].split()
    words[3] = ",".join(option for option in words[3].split(",") if not filesystem.STARTS_DRBD.match(option))
    return words


def _paths(text: str, volume: VolumeName) -> Iterable[str]:
    """The paths by which this fstab names a volume."""
    for words in map(str.split, text.splitlines()):
        try:
            if words and words[0].startswith("/dev/") and VolumeName.parse(words[0]) == volume:
                yield words[0]
        except ValueError:
            continue


def _kept(line: str) -> str:
    return filesystem.WAS + line.removesuffix("\n") + "\n"
