"""A server with several volumes behind `run`, and a backup that answers; as strict as the machine of `World`.

The kernel's part of the order of resyncs is drbd_worker.c's (drbd_resync_after_valid, _drbd_may_sync_now).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drbd_offsite import config, host, keys, messages, protocol
from drbd_offsite.errors import Refused
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.tools import drbd, drbd_dump, lvm

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import need
from ..plan.test_half import empty_config
from .world import Killed

EXTENT = 4 * make.MIB


@dataclass
class Volume:
    size: int = make.GIB
    tags: str = ""
    origin: str = ""
    pool: str = ""
    data_percent: str = ""
    open: bool = False


@dataclass
class Device:
    """One resource in the kernel."""

    minor: int = -1
    after: int = -1
    attached: bool = False
    primary: bool = False
    connected: bool = False
    synced: bool = False


@dataclass
class Fleet:
    programs: Programs
    root: Path
    volumes: dict[str, Volume]
    """Of the one group, by name."""
    free: int = 100 * make.GIB
    kernel: dict[str, Device] = field(default_factory=dict)
    metadata: set[int] = field(default_factory=set)
    """Slots that hold new metadata."""
    enabled: set[str] = field(default_factory=set)
    backup: dict[str, messages.Half] = field(default_factory=dict)
    """What the backup was told."""
    backup_refuses: dict[str, str] = field(default_factory=dict)
    """By resource; in the check already."""
    backup_room: int = 100
    """For so many copies; the check does not see those of other volumes."""
    log: list[str] = field(default_factory=list)
    kill_at: int | None = None

    def __post_init__(self) -> None:
        self.programs.machine = self.answer
        self.programs.addresses.add("10.89.33.1")
        config.PATH.write_text(empty_config(Flavour.SERVER))
        keys.directory("backup")
        (keys.ROOT / "backup/drbd.secret").write_text(make.SECRET)
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        looked = self._look(argv)
        if looked is not None:
            return looked
        request = protocol.decode_request(stdin) if argv[0] == "ssh" else None
        if request is not None and request.only_check:
            return self._replicate(request)
        self.log.append(" ".join(argv) if request is None else f"replicate {request.name}")
        if self.kill_at == len(self.log):
            raise Killed
        if request is not None:
            return self._replicate(request)
        getattr(self, "_" + argv[0])(list(argv[1:]))
        return Answer()

    # -- what is seen ----------------------------------------------------------------------------

    def _look(self, argv: tuple[str, ...]) -> Answer | None:
        if argv == lvm.REPORT:
            return Answer(json.dumps({"report": [self._report()]}))
        if argv == drbd.EVENTS:
            return Answer("".join(f"exists {line}\n" for line in self._events()) + "exists -\n")
        if argv == drbd_dump.dump("/etc/drbd.conf"):
            return Answer("<config/>")
        if argv[0] == "blkid":
            return Answer("", 2)
        if argv[0] == "drbdmeta":
            fresh = int(argv[4]) in self.metadata
            return Answer(f"{4:016X}:{0:016X}:{0:016X}:{0:016X}:0:0\n") if fresh else Answer("", 1)
        if "is-enabled" in argv:
            return Answer("", 0 if argv[-1] in self.enabled else 1)
        return None

    def _report(self) -> dict[str, object]:
        names = list(self.volumes)
        group = {"vg_name": "local", "vg_size": "0", "vg_free": f"{self.free}", "vg_extent_size": f"{EXTENT}"}
        volumes = [
            {
                "lv_name": name, "lv_size": f"{volume.size}", "lv_tags": volume.tags, "lv_active": "active",
                "lv_device_open": "open" if volume.open else "", "lv_kernel_major": "253",
                "lv_kernel_minor": f"{names.index(name)}", "origin": volume.origin, "pool_lv": volume.pool,
                "data_percent": volume.data_percent,
            }
            for name, volume in self.volumes.items()
        ]  # fmt: skip
        return {"vg": [group], "lv": volumes}

    def _events(self) -> Iterator[str]:
        for name, device in self.kernel.items():
            yield f"resource name:{name} role:{'Primary' if device.primary else 'Secondary'} suspended:no"
            if device.minor >= 0:
                disk = "UpToDate" if device.primary else "Inconsistent" if device.attached else "Diskless"
                yield f"device name:{name} volume:0 minor:{device.minor} disk:{disk}"
            if device.connected:
                peer_disk = "UpToDate" if device.synced else "Inconsistent"
                yield f"connection name:{name} conn-name:backup connection:Connected role:Secondary"
                yield (
                    f"peer-device name:{name} conn-name:backup volume:0 replication:{self.replication(name)} "
                    f"peer-disk:{peer_disk} out-of-sync:{0 if device.synced else 1024}"
                )

    def replication(self, name: str) -> str:
        device = self.kernel[name]
        if not device.connected or device.synced:
            return "Established" if device.connected else "Off"
        return "SyncSource" if self._may_sync(device) else "PausedSyncS"

    def syncing(self) -> list[str]:
        return [name for name in self.kernel if self.replication(name) == "SyncSource"]

    def _may_sync(self, device: Device) -> bool:
        earlier = self._of_minor(device.after)
        while earlier is not None and earlier.attached:
            if earlier.connected and not earlier.synced:
                return False
            earlier = self._of_minor(earlier.after)
        return True

    def _of_minor(self, minor: int) -> Device | None:
        return next((device for device in self.kernel.values() if device.minor == minor >= 0), None)

    # -- what is done ----------------------------------------------------------------------------

    def sync(self) -> None:
        """The syncs that run come to their end."""
        for name in self.syncing():
            self.kernel[name].synced = True

    def _replicate(self, request: messages.Replicate) -> Answer:
        made = request.name in self.backup
        if request.name in self.backup_refuses:
            return Answer(protocol.encode_error(Refused(self.backup_refuses[request.name], "See there.")))
        if not made and not request.only_check and len(self.backup) >= self.backup_room:
            return Answer(protocol.encode_error(Refused("The volume group local has 0 MiB free.", "Add a disk to it.")))
        half = self.backup.get(request.name) or messages.Half.of(make.replica(len(self.backup), request.name))
        if not request.only_check:
            need(request.server.volume == f"local/{request.name}", "another volume of that name")
            self.backup[request.name] = half
        return Answer(protocol.encode_answer(messages.Replicated(half, request.size_bytes)))

    def _lvcreate(self, words: list[str]) -> None:
        name = words[words.index("--name") + 1]
        need(name not in self.volumes, "lvcreate: it exists")
        self.volumes[name] = Volume(self._size(words))

    def _lvextend(self, words: list[str]) -> None:
        volume = self.volumes[VolumeName.parse(words[-1]).name]
        need(self._size(words) > volume.size, "lvextend: it is as large already")
        volume.size = self._size(words)

    @staticmethod
    def _size(words: list[str]) -> int:
        return int(words[words.index("--size") + 1].removesuffix("b"))

    def _systemctl(self, words: list[str]) -> None:
        if "enable" in words:
            self.enabled.add(words[-1])
        else:
            need("daemon-reload" in words, "systemctl: what?")

    def _drbdadm(self, words: list[str]) -> None:
        command, *options, name = words
        resource = config.load().resources[name]
        (file,) = self.root.glob(f"etc/drbd.d/*_{name}.res")
        slot = resource.here.metadata.index or 0
        device = self.kernel.get(name)
        match command:
            case "create-md":
                need(device is None and self.volumes["drbd_meta"].size >= (slot + 1) * 128 * make.MIB, "create-md")
                self.metadata.add(slot)
            case "new-resource":
                need(device is None, "new-resource: it exists")
                self.kernel[name] = Device()
            case "new-minor":
                need(device and self._of_minor(resource.here.minor) is None, "new-minor: somebody has it")
                device.minor = resource.here.minor
            case "attach":
                need(device and device.minor >= 0 and slot in self.metadata, "attach: not now")
                after = re.search(r'resync-after "(.+)/0"', file.read_text())
                self._order(device, config.load().resources[after[1]].here.minor if after else -1)
                device.attached = True
                self.volumes[name].open = True
            case "primary":
                need(device and device.attached and options == ["--force"], "primary: not now")
                device.primary = True
            case "connect":
                need(device and device.primary and not device.connected, "connect: not now")
                device.connected = True
            case _:
                need(False, f"drbdadm: {words}")

    def _drbdsetup(self, words: list[str]) -> None:
        command, minor, option = words
        device = self._of_minor(int(minor))
        need(command == "disk-options" and device and device.attached, "drbdsetup: no disk")
        self._order(device, int(option.removeprefix("--resync-after=")))

    def _order(self, device: Device, after: int) -> None:
        earlier = self._of_minor(after)
        while earlier is not None and earlier.attached:
            need(earlier is not device, "resync-after: a circle")
            earlier = self._of_minor(earlier.after)
        device.after = after
