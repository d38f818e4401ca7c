"""A backup whose copy is looked into, behind `run`: DRBD, LVM, device-mapper, mounts and what checks say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, messages, namespace, protocol
from drbd_offsite.model import Flavour
from drbd_offsite.observed import DiskState, ReplicationState
from drbd_offsite.operations import inspect
from drbd_offsite.plan import look, restore_point
from drbd_offsite.tools import drbd, fsck, lvm

from .. import make
from ..conftest import Answer, Programs
from .world import Killed

MIB = make.MIB
OVERLAY = look.overlay("test_a")
TREE = {"a": 1000, "deep/b": 2000, "deep/deeper/c": 3000}
SITE = make.site(Flavour.BACKUP)
CONFIG = make.CONFIG.replace("flavour = server", "flavour = backup").replace("backup]]", "server]]")
CONFIG = CONFIG.replace("peer = backup", "peer = server").replace("hostname = backup", "hostname = server")


class Copy:
    """One that replication goes on with; what a program changes is seen by the next."""

    def __init__(self, programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.programs = root, programs
        self.free = 1000 * MIB
        self.volumes: dict[str, dict[str, str]] = {}
        self.changes: list[str] = []
        """The programs that have changed something."""
        self.mounted: list[tuple[str, str]] = []
        """Device and options of what is mounted."""
        self.disk, self.replication, self.connected = DiskState.UP_TO_DATE, ReplicationState.ESTABLISHED, True
        self.received_kib = 100
        self.lacking = 0
        self.silent = False
        self.fstype = "ext4"
        self.says: dict[str, Answer] = {}
        """What a check says, by its name; nothing, and an exit code of 0, where it is not here."""
        self.tree = dict(TREE)
        self.laid_over = ""
        """What is below the overlay, and its state."""
        self.before: Callable[[str], None] = lambda _: None
        """What happens when a program is about to run."""
        self.kill_at = 0
        """Before the so-manieth change; after it, where it is negative."""
        self.dead = False
        self.add("test_a", 200 * MIB)
        self.add("drbd_meta", 128 * MIB)
        programs.machine = self.answer
        programs.addresses.add(make.TUNNEL.backup_address)
        self.private = 0
        monkeypatch.setattr(namespace, "private", self._private)
        config.PATH.write_text(CONFIG)
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
        inspect.MAPPER.mkdir(parents=True, exist_ok=True)

    def _private(self) -> None:
        self.private += 1

    def add(self, name: str, size: int, **columns: str) -> None:
        usual = {
            "lv_name": name, "lv_size": f"{size}", "lv_active": "active", "lv_device_open": "", "lv_tags": "",
            "lv_kernel_major": "253", "lv_kernel_minor": "0", "origin": "", "pool_lv": "", "data_percent": "",
        }  # fmt: skip
        self.volumes[name] = usual | columns

    def overwritten(self, **columns: str) -> None:
        """A resync is under way, and there is a restore point from before it."""
        self.disk, self.replication = DiskState.INCONSISTENT, ReplicationState.SYNC_TARGET
        journal.remember("restore-points", "test_a", {"volume": "x", "taken": "2026-01-01T12:00:10+00:00"})
        self.add("test_a_restore_point", 50 * MIB, lv_tags=restore_point.TAG, origin="test_a", **columns)

    @property
    def left(self) -> list[str]:
        """What is there and was not before anybody looked."""
        volumes = [name for name in self.volumes if "_look" in name]
        notes = [str(name) for name in journal.remembered(look.KIND)]
        directories = [path.name for path in inspect.DIRECTORY.glob("*")]
        overlays = [path.name for path in inspect.MAPPER.iterdir()]
        return [*volumes, *notes, *directories, *overlays, *(device for device, _ in self.mounted)]

    def die(self) -> None:
        """The process is gone, and with it what only it has seen."""
        self._unmount_all()
        self.dead, self.kill_at = False, 0

    def reboot(self) -> None:
        self.die()
        self.laid_over = ""
        for path in inspect.MAPPER.iterdir():
            path.unlink()
        shutil.rmtree(inspect.DIRECTORY, ignore_errors=True)

    # -- the programs --------------------------------------------------------------------------------------------

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        if self.dead:
            raise Killed
        self.before(argv[0])
        if argv == drbd.EVENTS:
            return Answer(self._events())
        if argv == lvm.REPORT:
            return Answer(self._report())
        if argv[0] == "ssh":
            return self._server_says(stdin)
        if argv[:1] == ("blkid",):
            return Answer(f"TYPE={self.fstype}\n") if self.fstype else Answer("", 2)
        if argv[:2] == ("dmsetup", "status"):
            return Answer(self.laid_over)
        if argv[0] == "btrfs":
            return Answer("num_devices\t\t1\n") if argv[1] == "inspect-internal" else Answer("", 1)
        self.changes.append(argv[0])
        if self.kill_at == len(self.changes):
            self.dead = True
            raise Killed
        said = self._change(argv)
        if self.kill_at == -len(self.changes):
            self.dead = True
            raise Killed
        return said

    def _change(self, argv: tuple[str, ...]) -> Answer | None:
        match argv[0]:
            case "lvcreate":
                return self._create(argv)
            case "lvremove":
                name = argv[-1].partition("/")[2]
                if self._in_use(name):
                    return Answer("", 5, f"Logical volume local/{name} is used by another device.")
                self.free += int(self.volumes.pop(name)["lv_size"])  # 0 of a thin one
                return Answer()
            case "lvchange":
                return Answer()
            case "dmsetup":
                return self._map(argv)
            case "setpriv":
                program = argv[argv.index("--") + 1]
                if program == "e2fsck":
                    program = "replay" if "journal_only" in argv else "e2fsck"
                return self.says.get(program, Answer())
            case "mount":
                return self._mount(argv)
            case "umount":
                self._unmount_all()
                return Answer()
        return None

    def _create(self, argv: tuple[str, ...]) -> Answer:
        name = argv[argv.index("--name") + 1]
        size = int(argv[argv.index("--size") + 1].removesuffix("b")) if "--size" in argv else 0
        assert name not in self.volumes
        assert size <= self.free
        snapshot = "--snapshot" in argv
        pool = self.volumes["test_a"]["pool_lv"] if snapshot and not size else ""
        self.free -= size
        self.add(
            name, size, lv_tags=argv[argv.index("--addtag") + 1], pool_lv=pool,
            origin=argv[-1].partition("/")[2] if snapshot else "", data_percent="1.00" if snapshot else "",
        )  # fmt: skip
        return Answer()

    def _map(self, argv: tuple[str, ...]) -> Answer:
        if argv[1] == "create":
            (inspect.MAPPER / argv[2]).touch()
            self.laid_over = "0 409600 snapshot 16/8192 0"
        elif argv[1] == "wipe_table":
            self.laid_over = "0 409600 error"
        else:
            assert argv[1] == "remove"
            if self.mounted:
                return Answer("", 1, "Device or resource busy")
            (inspect.MAPPER / argv[-1]).unlink()
            self.laid_over = ""
        return Answer()

    def _in_use(self, name: str) -> bool:
        below = name in ("test_a_restore_point", "test_a_look_cow") and "snapshot" in self.laid_over
        return below or any(device.endswith(f"/{name}") for device, _ in self.mounted)

    def _mount(self, argv: tuple[str, ...]) -> Answer:
        _, _, fstype, _, options, device, directory = argv
        assert fstype == self.fstype
        assert Path(directory).is_dir()
        if "mount" in self.says:
            return self.says["mount"]
        self.mounted.append((device, options))
        host.MOUNTINFO.write_text(f"1 1 253:9 / {directory} ro - {fstype} {device}\n")
        if "ro" in options.split(","):
            for name, size in self.tree.items():
                path = Path(directory) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * size)
        return Answer()

    def _unmount_all(self) -> None:
        self.mounted.clear()
        host.MOUNTINFO.write_text("")
        for directory in inspect.DIRECTORY.glob("*"):
            shutil.rmtree(directory)
            directory.mkdir()

    def _events(self) -> str:
        name = "name:test_a peer-node-id:0 conn-name:server"
        state = "Connected" if self.connected else "Connecting"
        replication = self.replication if self.connected else "Off"
        return (
            "exists resource name:test_a role:Secondary suspended:no\n"
            f"exists connection {name} connection:{state} role:Primary\n"
            f"exists device name:test_a volume:0 minor:0 disk:{self.disk} size:{200 * 1024}\n"
            f"exists peer-device {name} volume:0 replication:{replication} peer-disk:UpToDate "
            f"received:{self.received_kib} out-of-sync:0\nexists -\n"
        )

    def _report(self) -> str:
        group = {
            "vg_name": "local", "vg_size": f"{2000 * MIB}", "vg_free": f"{self.free}", "vg_extent_size": f"{4 * MIB}",
        }  # fmt: skip
        return json.dumps({"report": [{"vg": [group], "lv": list(self.volumes.values())}]})

    def _server_says(self, stdin: str) -> Answer:
        if self.silent:
            return Answer("", 255, "no route")
        assert isinstance(protocol.decode_request(stdin), messages.Report)
        theirs = messages.ResourceReport("test_a", "Primary", "UpToDate", "Connected", self.lacking, "")
        return Answer(protocol.encode_answer(messages.MachineReport("server", "8.4.11", [theirs])))


def options_of(fstype: str) -> str:
    way = fsck.way(fstype, "")
    assert way is not None
    return way.options
