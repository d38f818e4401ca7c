"""What is seen of a machine that was set up by hand, and why a resource of it cannot be taken over."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import Refused
from ..model import RESOURCE_NAME, Flavour, MetadataPlace, Replica, Resource, VolumeName
from ..observed import DrbdResource, Role
from ..render import resource_file
from ..tools import drbd_dump, openvpn
from ..tools.drbd_dump import DumpedResource, Half, Volume


@dataclass(frozen=True, slots=True)
class Found:
    """One look at a machine that may have no configuration yet."""

    hostname: str
    config: str | None
    """The text of drbd-offsite.conf."""
    dump: Mapping[str, DumpedResource]
    files: Mapping[str, str] = field(repr=False)
    """Text of each file in /etc/drbd.d, by path."""
    running: Mapping[str, DrbdResource]
    attached: Mapping[str, tuple[Volume, ...]]
    """What the kernel has of each resource on this machine."""
    volumes: Collection[VolumeName]
    identities: Mapping[VolumeName, dict[str, str]]
    """What blkid finds on the volumes of DRBD's resources."""
    fstab: str = field(repr=False)
    addresses: Mapping[str, str]
    """The interface of each address of this machine."""
    lines: Mapping[str, openvpn.Setup]
    """OpenVPN's configurations, by path."""
    secrets: Mapping[str, str] = field(repr=False)
    """The shared secrets that our key directory has already, by peer."""
    under_way: frozenset[str]
    """The resources whose adoption was begun."""

    def file_of(self, name: str) -> str:
        """The file that defines a resource, and nothing else; empty where there is none."""
        alone = [path for path, text in self.files.items() if drbd_dump.sections(text) == (f"resource {name}",)]
        if self.dump[name].file:
            return self.dump[name].file if self.dump[name].file in alone else ""
        read = [path for path in alone if path.endswith(".res")]  # by 8.3, from where drbd-utils' drbd.conf looks
        return read[0] if len(read) == 1 else ""


def replica(half: Half) -> Replica:
    """Raises ValueError where something is no logical volume."""
    (volume,) = half.volumes
    return Replica(VolumeName.parse(volume.disk), MetadataPlace.parse(volume.metadata), volume.minor, half.port)


def shape(dumped: DumpedResource, hostname: str) -> Iterator[Refused]:
    """What drbd-offsite has no words for."""
    leave = "Leave it to drbdadm; what runs goes on as it is."
    if not RESOURCE_NAME.fullmatch(dumped.name):
        yield Refused("Its name has other characters than letters, digits and _ . - in it.", leave)
    if len(dumped.halves) != 2:
        yield Refused(f"It has {len(dumped.halves)} machines, and drbd-offsite knows a server and a backup.", leave)
    if hostname not in [half.hostname for half in dumped.halves]:
        named = ", ".join(half.hostname or "floating" for half in dumped.halves)
        yield Refused(
            f'It has no section "on {hostname}", which is this machine\'s name, but {named}.',
            "If the machine was renamed, correct its file on both machines, and run adopt again.",
        )
    for half in dumped.halves:
        if [volume.number for volume in half.volumes] != [0]:
            yield Refused(f"It has {len(half.volumes)} volumes, and drbd-offsite knows one in a resource.", leave)
        if half.family != "ipv4":
            yield Refused(f"Its section on {half.hostname} has no IPv4 address.", leave)
        if half.volumes[0].metadata == drbd_dump.INTERNAL:
            yield Refused(
                "Its metadata is internal; drbd-offsite keeps it in a volume of its own.",
                "Leave it to drbdadm, or copy its files to a new volume and replicate that one: drbd-offsite add.",
            )
        try:
            replica(half)
        except ValueError as error:
            yield Refused(f"On {half.hostname}, {error}.", leave)


def machine(found: Found, flavour: Flavour, name: str, here: Half) -> Iterator[Refused]:
    """What has to be so on this machine while it is taken over."""
    if here.address not in found.addresses:
        yield Refused(
            f"Its address {here.address} is not on this machine.",
            "Bring its line up ('ip address' shows what there is), and run adopt again.",
        )
    wanted = replica(here)
    for volume in (wanted.volume, wanted.metadata.volume):
        if volume not in found.volumes:
            yield Refused(f"There is no logical volume {volume} on this machine.", "See 'lvs' for what there is.")
    seen = found.running.get(name)
    if seen is None:
        yield Refused("It is not up.", f"Bring it up as before (drbdadm up {name}), and run adopt again.")
    elif flavour is Flavour.SERVER and seen.role is not Role.PRIMARY:
        yield Refused(
            f"It is {seen.role} here, and from now on a server would make it Primary by itself.",
            f"If its data here is the newest, drbdadm primary {name}, and run adopt again.",
        )
    elif flavour is Flavour.BACKUP and seen.role is Role.PRIMARY:
        yield Refused(
            "It is Primary here, and a backup only receives a copy.",
            f"Once the server serves it again, drbdadm secondary {name} here, and run adopt again.",
        )
    if seen is not None:
        yield from _attached(found, name, here)


def _attached(found: Found, name: str, here: Half) -> Iterator[Refused]:
    """What runs has the data, and what the file says is attached next time. Metadata do not know whose they are."""
    attached = found.attached.get(name, ())
    if not all(volume.disk for volume in attached):
        yield Refused(
            "It is up without its disk (detached by hand, or given up after an error).",
            f"See the kernel's log for the disk. If it is sound, drbdadm attach {name}, and run adopt again.",
        )
    if [*map(_place, attached)] != [*map(_place, here.volumes)]:
        runs = " and ".join(map(_words, attached)) or "nothing"
        yield Refused(
            f"What runs is not what its file says. It has {runs}; the file has {_words(here.volumes[0])}, and from the "
            "next reboot on that would be served, with metadata that may not be its own.",
            "Find out which has the data; nearly always it is what runs. Then correct the file and run adopt again. "
            "A volume that is to take another one's place needs new metadata (drbdadm create-md) and a whole sync.",
        )


def _place(volume: Volume) -> tuple[object, ...]:
    """By one name, whichever of its paths it was given by."""
    try:
        return volume.number, volume.minor, VolumeName.parse(volume.disk), MetadataPlace.parse(volume.metadata)
    except ValueError:
        return volume.number, volume.minor, volume.disk, volume.metadata


def _words(volume: Volume) -> str:
    return f"{volume.disk} with its metadata in {volume.metadata} as minor {volume.minor}"


def own_file(found: Found, resource: Resource) -> Iterator[Refused]:
    """Ours takes its file's place in one step, which only a file of its own allows."""
    now, ours = found.file_of(resource.name), resource_file(resource)
    if not now:
        yield Refused(
            "It has no file of its own in /etc/drbd.d: of what else is in that file (another resource, common, global) "
            "nothing would be left.",
            "Move its section, and nothing else, to a new file there whose name ends in .res (drbdadm reads it as "
            "before), and run adopt again.",
        )
    if now != ours and ours in found.files:
        yield Refused(
            f"There is a file {ours} already, and it is not that of {resource.name}, which is {now}.",
            "Give that one another name that ends in .res as well, for drbdadm to read it as before.",
        )
