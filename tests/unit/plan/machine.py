"""A machine to carry plans out on, that insists like a real one on the order of things.

It knows what the tools in a plan do and when they refuse. It is changed by actions and looked at; nothing in it
knows the planner.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drbd_offsite import config
from drbd_offsite.model import Flavour, Site, VolumeName
from drbd_offsite.observed import (
    DRBD_MAJOR,
    ConnectionState,
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
from drbd_offsite.plan.actions import Action, AskPeer, Note, RemoveFile, Run, WriteFile
from drbd_offsite.plan.half import Findings, remaining
from drbd_offsite.plan.task import Task
from drbd_offsite.protocol import Half
from drbd_offsite.render import Credentials
from drbd_offsite.tools import filesystem
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


@dataclass
class Machine:
    flavour: Flavour
    operation: Operation
    config: str
    peer_half: Half
    """What the backup would answer."""
    volumes: dict[VolumeName, int]
    precious: VolumeName | None = None
    """A volume with somebody's data on it."""
    fstab: str = ""
    mounts: list[tuple[str, str]] = field(default_factory=list)
    """Device and target."""
    files: dict[str, str] = field(default_factory=dict)
    metadata: Identifiers | None = None
    synced: bool = False
    """The metadata say that the copy is up to date."""
    tunnel: bool = True
    module: bool = False
    enabled: bool = False
    kernel: Kernel | None = None
    forbidden: frozenset[Forbidden] = frozenset()
    log: list[str] = field(default_factory=list)

    # -- what can be seen ------------------------------------------------------------------------

    @property
    def site(self) -> Site:
        return config.parse(self.config)

    @property
    def task(self) -> Task:
        return Task.of(self.operation)

    def host(self) -> Host:
        volumes = {
            name: LogicalVolume(name, size, True, any(device == name.path for device, _ in self.mounts), (253, number))
            for number, (name, size) in enumerate(self.volumes.items())
        }
        devno = {name.path: volume.devno for name, volume in volumes.items()}
        devno[self.task.here.device] = (DRBD_MAJOR, self.task.here.minor)
        return Host(
            hostname=self.flavour,
            drbd_version="8.4.11" if self.module else "",
            active=frozenset(self.volumes),
            addresses=frozenset({make.TUNNEL.address_of(self.flavour)} if self.tunnel else ()),
            drbd={"test_a": self._resource()} if self.kernel else {},
            progress={},
            in_flight={},
            mounts=tuple(Mount(devno[device], target, "ext4", device) for device, target in self.mounts),
            holds=dict(make.hold(*self.forbidden)) if self.forbidden else {},
            operations={self.operation.key: self.operation},
            volumes=volumes,
            groups={"local": VolumeGroup("local", 2**60, 2**59, EXTENT)},
        )

    def _resource(self) -> DrbdResource:
        assert self.kernel is not None
        disk = DiskState.DISKLESS
        if self.kernel.attached:
            disk = DiskState.UP_TO_DATE if self.synced else DiskState.INCONSISTENT
        device = PeerDevice(0, ReplicationState.OFF, DiskState.UNKNOWN)
        line = DrbdConnection(self.flavour.other, ConnectionState.CONNECTING, Role.UNKNOWN, (device,))
        return DrbdResource(
            "test_a",
            Role.PRIMARY if self.kernel.primary else Role.SECONDARY,
            False,
            () if self.kernel.minor is None else (DrbdVolume(0, self.kernel.minor, disk),),
            (line,) if self.kernel.connected else (),
        )

    def findings(self) -> Findings:
        """As `operations.half` looks."""
        task = self.task
        attached = bool(self.kernel and self.kernel.attached)
        looked = (
            task.resource and not task.metadata_created and not attached and task.here.metadata.volume in self.volumes
        )
        return Findings(
            config=self.config,
            fstab=self.fstab,
            files=dict(self.files),
            credentials={self.flavour.other: Credentials(make.SECRET, (make.FINGERPRINT,))},
            unit_enabled=self.enabled,
            metadata=self.metadata if looked else None,
        )

    def next_step(self) -> Action | None:
        return next(remaining(self.site, self.host(), self.operation, self.findings()), None)

    # -- what can be done ------------------------------------------------------------------------

    def do(self, action: Action) -> None:
        match action:
            case Run(argv=argv):
                self._run(list(argv))
            case WriteFile(path=path, text=text):
                self._write(path, text)
            case RemoveFile():
                raise Impossible("making a half removes nothing")
            case AskPeer(request=request):
                need(self.flavour is Flavour.SERVER, "the backup asks nobody")
                need(request.server == Half.of(self.task.here), "the server's own half is sent")
                self._note(
                    "there", {name: getattr(self.peer_half, name) for name in ("volume", "metadata", "minor", "port")}
                )
            case Note(key=key, value=value):
                self._note(key, value)

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
            "modprobe": self._modprobe,
            "drbdadm": self._drbdadm,
            "umount": self._umount,
            "mount": self._mount,
            "systemctl": self._systemctl,
        }
        programs[argv[0]](argv[1:])

    def _lvcreate(self, words: list[str]) -> None:
        name = VolumeName(words[-1], words[words.index("--name") + 1])
        size = int(words[words.index("--size") + 1].removesuffix("b"))
        need(name not in self.volumes, f"lvcreate: {name} already exists")
        self.volumes[name] = -(-size // EXTENT) * EXTENT

    def _lvextend(self, words: list[str]) -> None:
        name = VolumeName.parse(words[-1])
        size = int(words[words.index("--size") + 1].removesuffix("b"))
        need(size > self.volumes[name], f"lvextend: {name} is as large already")
        self.volumes[name] = -(-size // EXTENT) * EXTENT

    def _modprobe(self, words: list[str]) -> None:
        need(words == ["drbd"], "modprobe: another module")
        self.module = True

    def _drbdadm(self, words: list[str]) -> None:
        if words[0] == "--":
            _, *options, command, name = words  # what follows "--" is for drbdmeta
        else:
            command, *options, name = words
            need(command != "wipe-md", "drbdadm: wipe-md takes no options of its own")
        need(name == "test_a", "drbdadm: another resource")
        need(any(path.endswith("_test_a.res") for path in self.files), "drbdadm: no resource file")
        need("test_a" in self.site.resources, "the resource file is not in the configuration")
        getattr(self, "_adm_" + command.replace("-", "_"))(options)

    def _adm_wipe_md(self, options: list[str]) -> None:
        need(options == ["--force"], "wipe-md would ask")
        need(self.metadata is not None, "wipe-md: there are no metadata")
        need(self.task.overwrite_metadata or self.metadata == FRESH, "wipe-md: nobody allowed that")
        self.metadata = None

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
        self.kernel.minor = self.task.here.minor

    def _adm_attach(self, _: list[str]) -> None:
        need(self.kernel and self.kernel.minor is not None and not self.kernel.attached, "attach: not now")
        need(self.metadata is not None, "attach: no valid metadata")
        need(self.task.metadata_created, "attach: from now on the metadata count, and nobody would know whose they are")
        need(self.task.here.volume in self.volumes, "attach: no such volume")
        need(all(device != self.task.here.volume.path for device, _ in self.mounts), "attach: device is busy")
        self.kernel.attached = True

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
        self.kernel.connected = True

    def _adm_disconnect(self, _: list[str]) -> None:
        need(self.kernel, "disconnect: no resource")
        self.kernel.connected = False

    def _umount(self, words: list[str]) -> None:
        (target,) = words
        need(any(mounted == target for _, mounted in self.mounts), "umount: not mounted")
        need(not any(mounted.startswith(target + "/") for _, mounted in self.mounts), "umount: target is busy")
        self.mounts = [(device, mounted) for device, mounted in self.mounts if mounted != target]

    def _mount(self, words: list[str]) -> None:
        if len(words) == 1:
            need(words[0] in filesystem.fstab_targets(self.fstab, frozenset({BY_RES})), "mount: not in fstab")
        else:
            need(words[0] == self.task.here.device, "mount: another device")
        need(self.kernel and self.kernel.primary, "mount: wrong medium type")
        need(all(mounted != words[-1] for _, mounted in self.mounts), "mount: already mounted")
        self.mounts.append((self.task.here.device, words[-1]))

    def _systemctl(self, words: list[str]) -> None:
        if "enable" in words:
            self.enabled = True
        elif "start" in words:
            need("--no-block" in words, "start: a tunnel waits for the network")
        else:
            need("daemon-reload" in words, "systemctl: what?")

    # -- what can happen -------------------------------------------------------------------------

    def power_cut(self) -> None:
        """Kernel state is gone; what fstab names by the volume itself is mounted again."""
        self.kernel, self.module = None, False
        targets = filesystem.fstab_targets(self.fstab, self.task.fstab_sources | FSTAB_NAMES)
        self.mounts = [(self.task.here.volume.path, target) for target in targets]

    def run_to_the_end(self, limit: int = 60) -> list[Action]:
        done: list[Action] = []
        while (action := self.next_step()) is not None:
            need(len(done) < limit, "there is no end")
            need(not done or done[-1] != action, f"it had no effect: {action}")
            self.do(action)
            done.append(action)
        return done

    def copy(self) -> "Machine":
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
        }


BY_RES = "/dev/drbd/by-res/test_a/0"
FSTAB_NAMES = frozenset({"/dev/local/test_a", "LABEL=test_a"})
