"""One whole machine behind `run`: the simulated machine of the planner's tests, asked through its programs."""

import json
from collections.abc import Callable
from pathlib import Path

from drbd_offsite import config, host, journal, keys, protocol
from drbd_offsite.observed import DrbdResource
from drbd_offsite.operations import half
from drbd_offsite.tools import drbd, lvm

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import Machine

LOOKS = ("lvm", "drbdsetup", "drbdmeta", "blkid")


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did."""


class World:
    """Programs print what the machine is, and change it; files are real, below the test's directory."""

    def __init__(self, machine: Machine, programs: Programs, root: Path) -> None:
        self.machine, self.root = machine, root
        self.peer: Callable[[protocol.Request], protocol.Answer] = lambda _: protocol.Done()
        self.takes_over = False
        """Whether the peer says that it serves test_a."""
        self.changes = 0
        self.kill_at: int | None = None
        self.addresses = programs.addresses
        programs.machine = self.answer
        config.PATH.write_text(machine.config)
        half.FSTAB.parent.mkdir(exist_ok=True)
        half.FSTAB.write_text(machine.fstab)
        keys.directory(machine.flavour.other)
        (keys.ROOT / machine.flavour.other / "drbd.secret").write_text(make.SECRET)
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        self.publish()

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        self.collect()
        if argv[0] in LOOKS or "is-enabled" in argv:
            return self._look(argv)
        self.changes += 1
        if self.kill_at == self.changes:
            raise Killed
        said = ""
        if argv[0] == "ssh":
            if not self.machine.tunnel:
                return Answer("", 255, "ssh: connect to host 10.89.33.2 port 7788: No route to host")
            request = protocol.decode_request(stdin)
            report = isinstance(request, protocol.Report)
            said = protocol.encode_answer(self._peer_s_report() if report else self.peer(request))
        else:
            self.machine._run(list(argv))
        self.publish()
        if self.kill_at == -self.changes:
            raise Killed
        return Answer(said)

    def _peer_s_report(self) -> protocol.MachineReport:
        role = "Primary" if self.takes_over else "Secondary"
        resource = protocol.ResourceReport("test_a", role, "UpToDate", "Connecting", 0, "")
        return protocol.MachineReport(self.machine.flavour.other, "8.4.11", [resource])

    def collect(self) -> None:
        """What was written to files since."""
        self.machine.config = config.PATH.read_text()
        self.machine.fstab = half.FSTAB.read_text()
        self.machine.files = {str(path): path.read_text() for path in self.root.glob("etc/drbd.d/*.res")}
        for operation in journal.operations().values():
            if "here" in operation.parameters:
                self.machine.operation = operation

    def publish(self) -> None:
        """What is seen without a program."""
        seen = self.machine.host()
        self.addresses.clear()
        self.addresses.update(seen.addresses)
        for volume in seen.active:
            device = host.DEVICES / volume.group / volume.name
            device.parent.mkdir(parents=True, exist_ok=True)
            device.touch()
        host.PROC_DRBD.write_text(f"version: {seen.drbd_version} (api:1/proto:86-101)\n" if seen.drbd_version else "")
        host.MOUNTINFO.write_text(
            "".join(f"1 1 {m.devno[0]}:{m.devno[1]} / {m.target} rw - {m.fstype} {m.source}\n" for m in seen.mounts)
        )

    def power_cut(self) -> None:
        self.collect()
        self.machine.power_cut()
        self.publish()

    def _look(self, argv: tuple[str, ...]) -> Answer:
        seen = self.machine.host()
        if argv == lvm.REPORT:
            return Answer(self._report())
        if argv == drbd.EVENTS:
            return Answer("".join(_events(resource) for resource in seen.drbd.values()) + "exists -\n")
        if argv[0] == "blkid":
            return Answer("LABEL=test_a\nTYPE=ext4\n")
        if argv[0] == "drbdmeta":
            found = self.machine.metadata
            return Answer(f"{found.current:016X}:{0:016X}:{0:016X}:{0:016X}:0:0:0:0\n") if found else Answer("", 1)
        assert "is-enabled" in argv
        return Answer("", 0 if self.machine.enabled else 1)

    def _report(self) -> str:
        seen = self.machine.host()
        volumes = [
            {
                "lv_name": volume.name.name, "lv_size": f"{volume.size_bytes}", "lv_tags": "",
                "lv_active": "active", "lv_device_open": "open" if volume.open else "",
                "lv_kernel_major": f"{volume.devno[0]}", "lv_kernel_minor": f"{volume.devno[1]}",
                "origin": "", "pool_lv": "", "data_percent": "",
            }
            for volume in seen.volumes.values()
            if volume.devno
        ]  # fmt: skip
        groups = [
            {
                "vg_name": g.name, "vg_size": f"{g.size_bytes}", "vg_free": f"{g.free_bytes}",
                "vg_extent_size": f"{g.extent_bytes}",
            }
            for g in seen.groups.values()
        ]  # fmt: skip
        return json.dumps({"report": [{"vg": groups, "lv": volumes}]})


def _events(seen: DrbdResource) -> str:
    lines = [f"exists resource name:{seen.name} role:{seen.role} suspended:no"]
    lines += [f"exists device name:{seen.name} volume:0 minor:{v.minor} disk:{v.disk}" for v in seen.volumes]
    lines += [
        f"exists connection name:{seen.name} conn-name:{line.peer} connection:{line.state} role:{line.role}"
        for line in seen.connections
    ]
    return "\n".join(lines) + "\n"
