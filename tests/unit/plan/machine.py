"""A machine to carry plans out on, that insists like a real one on the order of things.

It knows what the tools in a plan do and when they refuse. It is changed by actions and looked at; nothing in it
knows the planner.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from drbd_offsite import config
from drbd_offsite.errors import ToolFailed
from drbd_offsite.messages import Enlarge, Half, Release, Replicate
from drbd_offsite.model import Flavour, Replica, Site, VolumeName
from drbd_offsite.observed import (
    DRBD_MAJOR,
    ConnectionState,
    Consultation,
    DiskState,
    DrbdConnection,
    DrbdResource,
    DrbdVolume,
    Forbidden,
    Host,
    LogicalVolume,
    Mount,
    Operation,
    PeerDevice,
    ReplicationState,
    Role,
    VolumeGroup,
)
from drbd_offsite.plan import grow, half, remove
from drbd_offsite.plan.actions import (
    Action,
    AskPeer,
    Consult,
    Disconnect,
    Lift,
    Note,
    Once,
    Promote,
    RemoveFile,
    Run,
    SkipSync,
    WriteFile,
    describe,
)
from drbd_offsite.plan.circle import ENDING, MAKING, decide
from drbd_offsite.plan.task import Task
from drbd_offsite.render import Credentials
from drbd_offsite.tools import drbd, filesystem
from drbd_offsite.tools.drbd import JUST_CREATED, Identifiers

from .. import make

EXTENT = 4 * make.MIB
FRESH = Identifiers(JUST_CREATED, 0, (0, 0))
USED = Identifiers(0x1234567812345678, 0, (0, 0))


class Impossible(AssertionError):
    """A tool of a real machine would have refused this, or done harm."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Impossible(why)


@dataclass
class Kernel:
    """DRBD's state of the one resource; lost in a reboot."""

    minor: int | None = None
    attached: bool = False
    primary: bool = False
    connected: bool = False
    ended: bool = False
    """The connection was ended; the kernel goes on listing it, as StandAlone."""


@dataclass
class Machine:
    flavour: Flavour
    operation: Operation
    config: str
    peer_half: Half
    """What the backup would answer."""
    volumes: dict[VolumeName, int]
    tags: dict[VolumeName, str] = field(default_factory=dict)
    precious: VolumeName | None = None
    """A volume with somebody's data on it."""
    fstab: str = ""
    mounts: list[tuple[str, str]] = field(default_factory=list)
    """Device and target."""
    files: dict[str, str] = field(default_factory=dict)
    metadata: Identifiers | None = None
    synced: bool = False
    """The metadata say that the copy is up to date."""
    size: int = 0
    """Of the device, as the metadata say; 0 while they are new."""
    bypassed: bool = False
    """The volume was written to without DRBD, and the metadata do not say so."""
    tunnel: bool = True
    module: bool = False
    enabled: bool = False
    active: bool = False
    """Of the resource's unit."""
    kernel: Kernel | None = None
    in_step: bool = False
    """The other machine is there, and has all that is here."""
    peer_bytes: int = 0
    """Of the volume there."""
    peer_serves: bool = False
    """The other machine is Primary; on the backup it always is."""
    blank: bool = False
    """The volume holds nothing but zeros."""
    peer_new: bool = False
    """The other machine is there, and nothing was ever written to its copy through DRBD."""
    peer_blank: bool = False
    """The volume there holds nothing but zeros."""
    zeroed: int = 0
    """Of the volume, from its start, what was made zeros and is on the medium."""
    zeroed_in_cache: int = 0
    held_open: bool = False
    """Something that is no mount uses the device."""
    fstype: str = "ext4"
    fs_bytes: int = 0
    snapshots: dict[VolumeName, VolumeName] = field(default_factory=dict)
    """The origin of each."""
    free: int = 2**59
    """Bytes in the group."""
    neighbours: dict[str, int] = field(default_factory=dict)
    """Other resources that are up, and the minor whose resync each waits for; -1 for none."""
    consulted: dict[str, Consultation] = field(default_factory=dict)
    forbidden: frozenset[Forbidden] = frozenset()
    verbs: frozenset[str] | None = None
    """Of the operations under way, where that is known otherwise."""
    log: list[str] = field(default_factory=list)

    # -- what can be seen ------------------------------------------------------------------------

    @property
    def site(self) -> Site:
        return config.parse(self.config)

    @property
    def task(self) -> Task:
        return Task.of(self.operation)

    @property
    def here(self) -> Replica:
        half: Any = self.operation.parameters.get("here")
        return Half(**half).replica() if half else self.site.resources["test_a"].here

    @property
    def under_way(self) -> frozenset[str]:
        return self.verbs if self.verbs is not None else frozenset({self.operation.verb})

    def host(self) -> Host:
        volumes = {
            name: LogicalVolume(
                name,
                size,
                True,
                any(device == name.path for device, _ in self.mounts),
                (253, number),
                frozenset({self.tags[name]} if name in self.tags else ()),
            )
            for number, (name, size) in enumerate(self.volumes.items())
        }
        devno = {name.path: volume.devno for name, volume in volumes.items()}
        devno[self.here.device] = (DRBD_MAJOR, self.here.minor)
        for number, (name, origin) in enumerate(self.snapshots.items(), len(volumes)):
            volumes[name] = LogicalVolume(name, EXTENT, True, False, (253, number), origin=origin.name)
        neighbours = {
            name: make.seen(name, minor=self.site.resources[name].here.minor) for name in sorted(self.neighbours)
        }
        return Host(
            hostname=self.flavour,
            drbd_version="8.4.11" if self.module else "",
            active=frozenset(self.volumes),
            addresses=frozenset({make.TUNNEL.address_of(self.flavour)} if self.tunnel else ()),
            drbd=({"test_a": self._resource()} if self.kernel else {}) | neighbours if self.module else {},
            progress={},
            in_flight={},
            mounts=tuple(Mount(devno[device], target, "ext4", device) for device, target in self.mounts),
            holds=dict(make.hold(*self.forbidden)) if self.forbidden else {},
            operations={self.operation.key: self.operation},
            consulted=self.consulted,
            volumes=volumes,
            groups={"local": VolumeGroup("local", 2**60, self.free, EXTENT)},
        )

    def _resource(self) -> DrbdResource:
        assert self.kernel is not None
        disk = DiskState.DISKLESS
        if self.kernel.attached:
            disk = DiskState.UP_TO_DATE if self.synced else DiskState.INCONSISTENT
        line = ()
        if self.kernel.connected and self.in_step:
            role = Role.SECONDARY if self.flavour is Flavour.SERVER and not self.peer_serves else Role.PRIMARY
            device = PeerDevice(0, ReplicationState.ESTABLISHED, DiskState.UP_TO_DATE)
            line = (DrbdConnection(self.flavour.other, ConnectionState.CONNECTED, role, (device,)),)
        elif self.kernel.connected and self.peer_new and not self.synced:
            device = PeerDevice(0, ReplicationState.ESTABLISHED, DiskState.INCONSISTENT)
            line = (DrbdConnection(self.flavour.other, ConnectionState.CONNECTED, Role.SECONDARY, (device,)),)
        elif self.kernel.connected or self.kernel.ended:
            state = ConnectionState.CONNECTING if self.kernel.connected else ConnectionState.STANDALONE
            device = PeerDevice(0, ReplicationState.OFF, DiskState.UNKNOWN)
            line = (DrbdConnection(self.flavour.other, state, Role.UNKNOWN, (device,)),)
        minor, size = self.kernel.minor, self.size if self.kernel.attached else 0
        return DrbdResource(
            "test_a",
            Role.PRIMARY if self.kernel.primary else Role.SECONDARY,
            False,
            () if minor is None else (DrbdVolume(0, minor, disk, size),),
            line,
        )

    def _attached(self) -> bool:
        return bool(self.kernel and self.kernel.attached)

    def left(self) -> Iterator[Action]:
        """What the operation's planner wants done, looking as the operation looks."""
        credentials = {self.flavour.other: Credentials(make.SECRET, (make.FINGERPRINT,))}
        there = self.here.metadata.volume in self.volumes
        if self.operation.verb == "grow":
            fstype = self.fstype if self.kernel and self.kernel.primary else ""
            return grow.remaining(self.site, self.host(), self.operation, fstype)
        if self.operation.verb in ENDING:
            looked = remove.Removal.of(self.operation).own_metadata and self.kernel is None and there
            known, metadata = self.enabled or self.active, self.metadata if looked else None
            found = half.Findings(self.config, self.fstab, dict(self.files), credentials, known, metadata)
            return remove.remaining(self.site, self.host(), self.operation, found)
        looked = self.task.resource and not self.task.metadata_created and not self._attached() and there
        metadata = self.metadata if looked else None
        blank = self.blank and half.avoidable(self.site, self.host(), self.task)
        made = half.Findings(
            self.config, self.fstab, dict(self.files), credentials, self.enabled, metadata, blank=blank
        )
        return half.remaining(self.site, self.host(), self.operation, made)

    def next_step(self) -> Action | None:
        return next(self.left(), None)

    # -- what can be done ------------------------------------------------------------------------

    def do(self, action: Action) -> None:
        match action:
            case Run(argv=argv):
                self._run(list(argv))
            case WriteFile(path=path, text=text):
                self._write(path, text)
            case RemoveFile(path=path):
                need(self.under_way & ENDING, "making a half removes nothing")
                del self.files[path]
            case AskPeer(request=request):
                need(self.flavour is Flavour.SERVER, "the backup asks nobody")
                self._ask(request)
            case Note(key=key, value=value):
                self._note(key, value)
            case Once(step=step, note=note):
                self.do(step)
                self.do(note)
            case Disconnect():
                self._run(["drbdadm", "disconnect", "test_a"])
            case SkipSync():
                self._skip_sync()
            case Lift():
                self.forbidden = frozenset()
            case Consult(resource=resource):
                self.consulted[resource] = Consultation(0.0, free=True)
            case Promote():
                self._run(["drbdadm", "primary", "test_a"])

    def _skip_sync(self) -> None:
        if self.kernel and not self.kernel.connected:
            self._run(["drbdadm", "connect", "test_a"])
        if self.peer_new:
            self._run([*drbd.skip_sync("test_a")])

    def _ask(self, request: Replicate | Enlarge | Release) -> None:
        need(not request.only_check, "it has been asked before anything was begun")
        match request:
            case Replicate(server=half):
                need(half == Half.of(self.here), "the server's own half is sent")
                there = {name: getattr(self.peer_half, name) for name in ("volume", "metadata", "minor", "port")}
                self._note("there", there)
            case Enlarge(size_bytes=size):
                self.peer_bytes = max(self.peer_bytes, size)
                self._note("there_bytes", self.peer_bytes)
            case Release(server=half):
                need(half == Half.of(self.here), "the server's own half is sent")
                need(self.kernel is None and "test_a" not in self.site.resources, "it is still in use here")
                self._note("asked_peer", True)

    def _note(self, key: str, value: object) -> None:
        self.operation = replace(self.operation, parameters={**self.operation.parameters, key: value})

    def _write(self, path: str, text: str) -> None:
        if path == str(config.PATH):
            config.parse(text)
            self.config = text
        elif path == "/etc/fstab":
            self.fstab = text
        else:
            self.files[path] = text

    def _run(self, argv: list[str]) -> None:
        self.log.append(" ".join(argv))
        programs: dict[str, Callable[[list[str]], None]] = {
            "lvcreate": self._lvcreate,
            "lvextend": self._lvextend,
            "lvremove": self._lvremove,
            "blkdiscard": self._blkdiscard,
            "sync": self._sync,
            "modprobe": self._modprobe,
            "drbdadm": self._drbdadm,
            "drbdsetup": self._drbdsetup,
            "umount": self._umount,
            "mount": self._mount,
            "resize2fs": self._resize2fs,
            "xfs_growfs": self._xfs_growfs,
            "systemctl": self._systemctl,
        }
        programs[argv[0]](argv[1:])

    def _lvcreate(self, words: list[str]) -> None:
        name = VolumeName(words[-1], words[words.index("--name") + 1])
        size = int(words[words.index("--size") + 1].removesuffix("b"))
        need(name not in self.volumes, f"lvcreate: {name} already exists")
        self.tags.pop(name, None)
        if "--addtag" in words:
            self.tags[name] = words[words.index("--addtag") + 1]
        self.volumes[name] = -(-size // EXTENT) * EXTENT

    def _lvextend(self, words: list[str]) -> None:
        name = VolumeName.parse(words[-1])
        size = int(words[words.index("--size") + 1].removesuffix("b"))
        need(size > self.volumes[name], f"lvextend: {name} is as large already")
        need(name not in self.snapshots.values(), "lvextend: snapshot origins can be resized only while inactive")
        need(size - self.volumes[name] <= self.free, "lvextend: insufficient free space")
        self.volumes[name] = -(-size // EXTENT) * EXTENT

    def _lvremove(self, words: list[str]) -> None:
        name = VolumeName.parse(words[-1])
        need("--yes" in words, "lvremove would ask")
        need(name in self.volumes, f"lvremove: there is no {name}")
        need(all(device != name.path for device, _ in self.mounts), "lvremove: contains a filesystem in use")
        used = {self.here.volume, self.here.metadata.volume} if self._attached() else set()
        need(name not in used, f"lvremove: {name} in use")
        need(name != self.precious, "lvremove: somebody's data")
        del self.volumes[name]
        if name == self.here.metadata.volume:
            self._metadata_gone()

    def _blkdiscard(self, words: list[str]) -> None:
        start, length = (int(words[words.index(option) + 1]) for option in ("--offset", "--length"))
        need(self.flavour is Flavour.BACKUP and words[-1] == self.here.volume.path, "blkdiscard: somebody's data")
        need(self.here.volume != self.precious, "blkdiscard: somebody's data")
        need(not self._attached() and self.here.volume in self.volumes, "blkdiscard: not now")
        need("--zeroout" in words and start <= max(self.zeroed, self.zeroed_in_cache), "blkdiscard: a gap")
        need(start + length <= self.volumes[self.here.volume], "blkdiscard: beyond the end")
        self.zeroed_in_cache = start + length

    def _sync(self, words: list[str]) -> None:
        need(words == [self.here.volume.path], "sync: what?")
        self.zeroed = max(self.zeroed, self.zeroed_in_cache)

    def _modprobe(self, words: list[str]) -> None:
        need(words == ["drbd"], "modprobe: another module")
        self.module = True

    def _drbdadm(self, words: list[str]) -> None:
        if words[0] == "--":
            _, *options, command, name = words  # what follows "--" is for drbdmeta
        else:
            command, *options, name = words
            need(command != "wipe-md", "drbdadm: wipe-md takes no options of its own")
        # Seen with 8.4: it "requires a specific volume id".
        need(name == ("test_a/0" if command == "new-current-uuid" else "test_a"), "drbdadm: another resource")
        need(any(path.endswith("_test_a.res") for path in self.files), "drbdadm: no resource file")
        need("test_a" in self.site.resources, "the resource file is not in the configuration")
        getattr(self, "_adm_" + command.replace("-", "_"))(options)

    def _drbdsetup(self, words: list[str]) -> None:
        command, minor, option = words
        need(command == "disk-options" and option.startswith("--resync-after="), "drbdsetup: what?")
        (name,) = (name for name, resource in self.site.resources.items() if resource.here.minor == int(minor))
        need(name in self.neighbours, "disk-options: no such minor, or it has no disk")
        self.neighbours[name] = int(option.partition("=")[2])

    def _adm_wipe_md(self, options: list[str]) -> None:
        need(options == ["--force"], "wipe-md would ask")
        need(self.metadata is not None, "wipe-md: there are no metadata")
        need(self.kernel is None or not self.kernel.attached, "wipe-md: device is attached")
        parameters = self.operation.parameters
        if self.under_way & ENDING:
            need(parameters["own_metadata"], "wipe-md: these are somebody else's")
        else:
            need(parameters["overwrite_metadata"] or self.metadata == FRESH, "wipe-md: nobody allowed that")
        self._metadata_gone()

    def _metadata_gone(self) -> None:
        self.metadata, self.synced, self.bypassed, self.size = None, False, False, 0

    def _adm_create_md(self, options: list[str]) -> None:
        task = self.task
        need(options == ["--force"], "create-md would ask")
        need(not (self.kernel and self.kernel.attached), "create-md: device is attached")
        need(self.metadata is None or self.metadata == FRESH, "create-md: there are metadata")
        need(not self.synced, "create-md: the metadata of this resource would be lost")
        place = task.here.metadata
        index = place.index if place.index is not None else 0
        smallest = (index + 1) * 128 * make.MIB if place.index is not None else task.size_bytes // 32768
        need(self.volumes.get(place.volume, 0) >= smallest, "create-md: device too small")
        self.metadata = FRESH

    def _adm_new_resource(self, _: list[str]) -> None:
        need(self.module, "drbdsetup: no module")
        need(self.kernel is None, "new-resource: it exists")
        self.kernel = Kernel()

    def _adm_new_minor(self, _: list[str]) -> None:
        need(self.kernel and self.kernel.minor is None, "new-minor: no resource, or it has one")
        self.kernel.minor = self.here.minor

    def _adm_attach(self, _: list[str]) -> None:
        need(self.kernel and self.kernel.minor is not None and not self.kernel.attached, "attach: not now")
        need(self.metadata is not None, "attach: no valid metadata")
        need(
            self.operation.parameters.get("metadata_created", True),
            "attach: from now on the metadata count, and nobody would know whose they are",
        )
        need(not self.under_way & ENDING, "attach: it is being taken away")
        need(not self.bypassed, "attach: the volume was written to, and the other copy would never know what it lacks")
        need(self.here.volume in self.volumes, "attach: no such volume")
        backup_s = self.flavour is Flavour.BACKUP and self.here.volume == self.precious
        need(not backup_s, "attach: the first sync would overwrite somebody's data")
        need(all(device != self.here.volume.path for device, _ in self.mounts), "attach: device is busy")
        self.kernel.attached = True
        self.size = self.size or self.volumes[self.here.volume]

    def _adm_primary(self, options: list[str]) -> None:
        need(self.flavour is Flavour.SERVER, "the backup is never promoted")
        need(self.kernel and self.kernel.attached and not self.kernel.primary, "primary: not now")
        need(self.synced or options == ["--force"], "primary: need access to up-to-date data")
        need(not (self.synced and options), "primary: force where none is needed")
        self.kernel.primary = self.synced = True
        self.metadata = USED

    def _adm_connect(self, _: list[str]) -> None:
        need(self.tunnel, "connect: address not found on this host")
        need(self.kernel and not self.kernel.connected, "connect: not now")
        need(Forbidden.CONNECT not in self.forbidden, "connect: a hold is in the way")
        self.kernel.connected, self.kernel.ended = True, False

    def _adm_new_current_uuid(self, options: list[str]) -> None:
        need(options == ["--clear-bitmap"], "new-current-uuid: everything would be sent")
        need(self.kernel and self.kernel.connected and self.peer_new, "new-current-uuid: need to be connected")
        if self.metadata != FRESH or self.kernel.primary:
            raise ToolFailed("Failure: (151) No new current UUID: need to be StandAlone")
        need(self.blank and self.peer_blank, "new-current-uuid: the copies differ, and nobody would ever know")
        self.synced = self.in_step = True
        self.metadata = USED

    def _adm_disconnect(self, _: list[str]) -> None:
        need(self.kernel, "disconnect: no resource")
        self.kernel.connected, self.kernel.ended = False, True

    def _adm_secondary(self, _: list[str]) -> None:
        need(self.kernel and self.kernel.primary, "secondary: it is")
        self._let_go()
        self.kernel.primary = False

    def _adm_down(self, _: list[str]) -> None:
        need(self.kernel, "down: no resource")
        self._let_go()
        self.kernel = None

    def _let_go(self) -> None:
        need(all(device != self.here.device for device, _ in self.mounts), "it is mounted")
        if self.held_open:
            raise ToolFailed("State change failed: (-12) Device is held open by someone")

    def _adm_resize(self, _: list[str]) -> None:
        need(self.kernel and self.kernel.attached and self.kernel.primary, "resize: not now")
        need(self.tunnel and self.kernel.connected and self.in_step, "resize: not connected")
        self.size = min(self.volumes[self.here.volume], self.peer_bytes)

    def _umount(self, words: list[str]) -> None:
        (target,) = words
        need(any(mounted == target for _, mounted in self.mounts), "umount: not mounted")
        need(not any(mounted.startswith(target + "/") for _, mounted in self.mounts), "umount: target is busy")
        self.mounts = [(device, mounted) for device, mounted in self.mounts if mounted != target]

    def _mount(self, words: list[str]) -> None:
        target, device = words[-1], words[0]
        need(all(mounted != target for _, mounted in self.mounts), "mount: already mounted")
        if len(words) == 1:
            replicated = target in filesystem.fstab_targets(self.fstab, DEVICE_NAMES)
            need(replicated or target in filesystem.fstab_targets(self.fstab, FSTAB_NAMES), "mount: not in fstab")
            device = self.here.device if replicated else self.here.volume.path
        if device == self.here.device:
            need(self.kernel and self.kernel.primary, "mount: wrong medium type")
        else:
            need(device == self.here.volume.path, "mount: another device")
            self._write_past_drbd()
        self.mounts.append((device, target))

    def _write_past_drbd(self) -> None:
        need(not self._attached(), "mount: device is busy")
        need(
            self.under_way & (ENDING | MAKING) or self.metadata in (None, FRESH) or "test_a" not in self.site.resources,
            "mount: the circle would attach a volume whose metadata know nothing of these writes",
        )
        self.bypassed = self.synced

    def _resize2fs(self, words: list[str]) -> None:
        need(words == [self.here.device] and self.fstype == "ext4", "resize2fs: what?")
        need(any(device == self.here.device for device, _ in self.mounts), "resize2fs: run e2fsck first")
        self.fs_bytes = self.size

    def _xfs_growfs(self, words: list[str]) -> None:
        need((self.here.device, words[0]) in self.mounts and self.fstype == "xfs", "xfs_growfs: not a mounted XFS")
        self.fs_bytes = self.size

    def _systemctl(self, words: list[str]) -> None:
        if "enable" in words:
            self.enabled = self.active = True
        elif "disable" in words:
            need("--now" in words and words[-1] == "drbd-offsite@test_a.service", "disable: what?")
            # Its ExecStop waits for the lock of whoever stops it.
            need(self.kernel is None, "disable --now: the unit has something to take down")
            self.enabled = self.active = False
        elif "start" in words:
            need("--no-block" in words, "start: a tunnel waits for the network")
        else:
            need("daemon-reload" in words, "systemctl: what?")

    # -- what can happen -------------------------------------------------------------------------

    def power_cut(self) -> None:
        """Kernel state is gone; what fstab names by the volume itself is mounted again."""
        self.kernel, self.module, self.active, self.consulted = None, False, self.enabled, {}
        self.zeroed_in_cache = 0
        self.mounts = []
        if self.neighbours:
            # They come up by themselves, and as their files say.
            self.module = True
            self.neighbours = {name: self._resync_after(name) for name in self.neighbours}
        sources: Any = self.operation.parameters.get("fstab_sources", ())
        for target in filesystem.fstab_targets(self.fstab, FSTAB_NAMES | set(sources)):
            self._write_past_drbd()
            self.mounts.append((self.here.volume.path, target))

    def _resync_after(self, name: str) -> int:
        text = next(text for path, text in self.files.items() if path.endswith(f"_{name}.res"))
        earlier = re.search(r'resync-after "(\w+)/0"', text)
        number = next((path for path in self.files if earlier and path.endswith(f"_{earlier[1]}.res")), None)
        need(bool(number) == bool(earlier), "drbdadm: the resource mentioned in resync-after is not known")
        return int(number.rpartition("/")[2].partition("_")[0]) if number else -1

    def come_up(self) -> None:
        """What the circle does at boot, and what fstab mounts after it."""
        while "test_a" in self.site.resources:
            actions = decide(self.site, self.host(), self.site.resources["test_a"]).actions
            if not actions:
                break
            self.do(actions[0])
        if self.kernel and self.kernel.primary:
            targets = filesystem.fstab_targets(self.fstab, DEVICE_NAMES)
            self.mounts += [(self.here.device, target) for target in targets]

    def run_to_the_end(self, limit: int = 60) -> list[Action]:
        done: list[Action] = []
        while (action := self.next_step()) is not None:
            need(len(done) < limit, "there is no end")
            need(not done or done[-1] != action, f"it had no effect: {action}")
            self.do(action)
            done.append(action)
        return done

    def at_the_end(self) -> Self:
        """A copy of it, on which nothing is left to do."""
        end = self.copy()
        end.run_to_the_end()
        return end

    def killed(self) -> Iterator[tuple[str, Self]]:
        """A copy of it after each number of steps, and the last of these."""
        at = self.copy()
        yield "nothing was done", at.copy()
        while (action := at.next_step()) is not None:
            at.do(action)
            yield describe(action), at.copy()

    def copy(self) -> Self:
        return copy.deepcopy(self)

    def outcome(self) -> dict[str, object]:
        """Everything that lasts."""
        return {
            "config": self.config,
            "volumes": self.volumes,
            "fstab": self.fstab,
            "mounts": sorted(self.mounts),
            "files": self.files,
            "metadata": self.metadata,
            "synced": self.synced,
            "module": self.module,
            "enabled": self.enabled,
            "kernel": self.kernel,
            "operation": self.operation.parameters,
            "size": self.size,
            "peer_bytes": self.peer_bytes,
            "fs_bytes": self.fs_bytes,
            "neighbours": self.neighbours,
            "forbidden": self.forbidden,
            "in_step": self.in_step,
        }


BY_RES = "/dev/drbd/by-res/test_a/0"
DEVICE_NAMES = frozenset({BY_RES, "/dev/drbd0", "/dev/drbd/by-disk/local/test_a"})
FSTAB_NAMES = frozenset({"/dev/local/test_a", "LABEL=test_a"})
