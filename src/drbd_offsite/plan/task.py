"""What an unfinished ``add`` (or its counterpart on the backup) has decided; it lives in the journal."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..messages import Half
from ..model import MAX_INDEXED_BYTES, METADATA_SLOT_BYTES, MetadataPlace, Replica, Resource, Site, VolumeName
from ..observed import Host, LogicalVolume, Operation
from ..tools import drbd_dump

FIRST_PORT = 7789
MINORS = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """One machine's half of a resource that is being made."""

    name: str
    peer: str
    size_bytes: int
    here: Replica
    there: Replica | None = None
    """Unknown on the server until the backup has made its half."""
    metadata_created: bool = False
    overwrite_metadata: bool = False
    mounts: tuple[str, ...] = ()
    """Where the volume was mounted, or fstab mounts it; it is to be moved there as the DRBD device."""
    fstab_sources: frozenset[str] = field(default_factory=frozenset)
    """The names under which fstab knows the volume."""
    priority: int = 0
    reordered: bool = False
    """The kernel knows what waits for this resource's resync from now on."""
    blank: bool = False
    """On the server: the volume seems to hold nothing but zeros, and the first sync may be avoidable; tried once."""
    seed: str = ""
    """On the server: the file on the backup from which the copy's volume is filled."""
    zeroed_bytes: int = 0
    """On the backup: of the copy's volume, from its start, what was made zeros since it was created."""
    copy_tag: str = ""
    """On the backup: the LVM tag of the volume that this operation makes, which no other one has."""

    @property
    def resource(self) -> Resource | None:
        return Resource(self.name, self.peer, self.here, self.there, self.priority) if self.there else None

    def parameters(self) -> dict[str, object]:
        """As JSON, for `journal.begin`."""
        return {
            "peer": self.peer,
            "size_bytes": self.size_bytes,
            "here": asdict(Half.of(self.here)),
            "there": asdict(Half.of(self.there)) if self.there else None,
            "metadata_created": self.metadata_created,
            "overwrite_metadata": self.overwrite_metadata,
            "mounts": list(self.mounts),
            "fstab_sources": sorted(self.fstab_sources),
            "priority": self.priority,
            "reordered": self.reordered,
            "blank": self.blank,
            "seed": self.seed,
            "zeroed_bytes": self.zeroed_bytes,
            "copy_tag": self.copy_tag,
        }

    @classmethod
    def of(cls, operation: Operation) -> "Task":
        """What `parameters` put on disk."""
        values: dict[str, Any] = dict(operation.parameters)
        return cls(
            name=operation.resource,
            peer=values["peer"],
            size_bytes=values["size_bytes"],
            here=Half(**values["here"]).replica(),
            there=Half(**values["there"]).replica() if values["there"] else None,
            metadata_created=values["metadata_created"],
            overwrite_metadata=values["overwrite_metadata"],
            mounts=tuple(values["mounts"]),
            fstab_sources=frozenset(values["fstab_sources"]),
            # one that an earlier version has begun knows of none of these
            priority=values.get("priority", 0),
            reordered=values.get("reordered", False),
            blank=values.get("blank", False),
            seed=values.get("seed", ""),
            zeroed_bytes=values.get("zeroed_bytes", 0),
            copy_tag=values.get("copy_tag", ""),
        )


def half_of(operation: Operation) -> Replica | None:
    """This machine's half of what an operation makes or takes away; None for one of another kind."""
    here: Any = operation.parameters.get("here")
    return Half(**here).replica() if here else None


def tagged(site: Site, host: Host, tag: str) -> list[VolumeName]:
    """The volumes that have an LVM tag, by name; never a snapshot, a pool, a hidden volume or DRBD's metadata."""
    metadata = {site.metadata_pool} | {resource.here.metadata.volume for resource in site.resources.values()}
    return sorted(
        name
        for name, volume in host.volumes.items()
        if tag in volume.tags and name not in metadata and _ordinary(volume)
    )


def _ordinary(volume: LogicalVolume) -> bool:
    # LVM puts what is hidden into brackets: also the origin and the pool of a cached volume, which is no snapshot.
    snapshot = volume.origin and not volume.origin.startswith("[")
    pool = volume.data_percent is not None and not volume.origin and not volume.pool
    return not (snapshot or pool or volume.name.name.startswith("["))


def allocate(
    site: Site, host: Host, volume: VolumeName, size_bytes: int, others: Sequence[drbd_dump.Half] = ()
) -> Replica:
    """The lowest minor, metadata slot and port that nobody has: the running count that the admin need not keep.

    ``others`` are `foreign` halves. Where two resources have the same, drbdadm refuses every command for every one.
    """
    # Those of a removal as well: the backup's half still knows them.
    under_way = [half for operation in host.operations.values() if (half := half_of(operation))]
    halves = [resource.here for resource in site.resources.values()] + under_way
    theirs = [v for half in others for v in half.volumes]
    minors = {half.minor for half in halves} | {v.minor for seen in host.drbd.values() for v in seen.volumes}
    minors |= {v.minor for v in theirs}
    ports = {half.port for half in halves} | {half.port for half in others} | {site.service_port}
    places = [half.metadata for half in halves] + [place for v in theirs if (place := _place(v.metadata))]
    return Replica(
        volume,
        metadata_place(site, places, volume, size_bytes),
        next(n for n in range(MINORS) if n not in minors),
        next(n for n in range(FIRST_PORT, 65536) if n not in ports),
    )


def foreign(site: Site, host: Host, dumped: Iterable[drbd_dump.DumpedResource]) -> list[drbd_dump.Half]:
    """What DRBD's own files give to resources on this machine that are not ours, be they up or down."""
    halves = [half for resource in dumped if resource.name not in site.resources for half in resource.halves]
    # Of a floating one no name is written, of a stacked one those of both machines.
    return [half for half in halves if not half.hostname or host.hostname in half.hostname.split()]


def _place(text: str) -> MetadataPlace | None:
    """None for internal metadata, and for what is no logical volume."""
    try:
        return MetadataPlace.parse(text)
    except ValueError:
        return None


def metadata_place(site: Site, taken: list[MetadataPlace], volume: VolumeName, size_bytes: int) -> MetadataPlace:
    """The lowest free slot of the metadata volume; above (nearly) 4 TiB a volume of the resource's own.

    That also where the metadata volume is the metadata of one resource, without slots: slot 0 is the same place.
    """
    if size_bytes > MAX_INDEXED_BYTES or MetadataPlace(site.metadata_pool, None) in taken:
        return MetadataPlace(VolumeName(site.volume_group, f"{volume.name}_drbd_meta"), None)
    slots = {place.index for place in taken if place.volume == site.metadata_pool}
    return MetadataPlace(site.metadata_pool, next(n for n in range(MINORS) if n not in slots))


def metadata_bytes(place: MetadataPlace, size_bytes: int) -> int:
    """How large the metadata volume has to be, in all, for a place in it.

    An index needs the slots up to its own. Without one: a bit for each 4 KiB, the activity log and
    the superblock (drbd.conf(5), "flexible-meta-disk"), with room for the volume to grow to twice its size.
    """
    if place.index is not None:
        return (place.index + 1) * METADATA_SLOT_BYTES
    return 2 * size_bytes // (4096 * 8) + 2**20
