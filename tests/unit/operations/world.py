"""One whole machine behind `run`: the simulated machine of the planner's tests, asked through its programs."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, keys, messages, protocol
from drbd_offsite.errors import OffsiteError
from drbd_offsite.observed import DrbdResource
from drbd_offsite.operations import half
from drbd_offsite.reconcile import reconcile
from drbd_offsite.tools import drbd, drbd_dump, filesystem, lvm

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import DEVICE_NAMES, Machine, need

LOOKS = ("lvm", "drbdmeta", "blkid", "env")


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did."""


class World:
    """Programs print what the machine is, and change it; files are real, below the test's directory."""

    def __init__(self, machine: Machine, programs: Programs, root: Path) -> None:
        self.machine, self.root = machine, root
        self.peer: Callable[[messages.Request], messages.Answer] = lambda _: messages.Done()
        self.away = False
        """Whether the other machine is silent."""
        self.ahead = 0
        """For so many looks the peer lacks what was written a moment ago."""
        self.resize_looks = 0
        """For so many looks after a resize the device has its old size: the peer has not answered yet."""
        self._new_size = 0
        self.takes_over = False
        """Whether the peer says that it serves test_a."""
        self.dumped = Answer("<config/>")
        """What drbdadm has read of DRBD's own files."""
        self.changes = 0
        self.kill_at: int | None = None
        self.addresses = programs.addresses
        programs.machine = self.answer
        config.PATH.write_text(machine.config)
        half.FSTAB.parent.mkdir(exist_ok=True)
        half.FSTAB.write_text(machine.fstab)
        for path, text in machine.files.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        keys.directory(machine.flavour.other)
        (keys.ROOT / machine.flavour.other / "drbd.secret").write_text(make.SECRET)
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        self.publish()

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        self.collect()
        if argv[0] in LOOKS or argv == drbd.EVENTS or {"is-enabled", "is-active"} & set(argv):
            return self._look(argv)
        self.changes += 1
        if self.kill_at == self.changes:
            raise Killed
        said = ""
        if argv[0] == "ssh":
            if self.away or not self.machine.tunnel:
                return Answer("", 255, "ssh: connect to host 10.89.33.2 port 7788: No route to host")
            said = self._peer_says(protocol.decode_request(stdin))
        else:
            size = self.machine.size
            self.machine._run(list(argv))
            if self.resize_looks and "resize" in argv:
                self._new_size, self.machine.size = self.machine.size, size
        self.publish()
        if self.kill_at == -self.changes:
            raise Killed
        return Answer(said)

    def _peer_says(self, request: messages.Request) -> str:
        if isinstance(request, messages.Report):
            return protocol.encode_answer(self._peer_s_report())
        try:
            return protocol.encode_answer(self.peer(request))
        except OffsiteError as error:
            return protocol.encode_error(error)

    def _peer_s_report(self) -> messages.MachineReport:
        role = "Primary" if self.takes_over else "Secondary"
        resource = messages.ResourceReport("test_a", role, "UpToDate", "Connecting", 0, "")
        return messages.MachineReport(self.machine.flavour.other, "8.4.11", [resource])

    def collect(self) -> None:
        """What was written to files since."""
        self.machine.config = config.PATH.read_text()
        self.machine.fstab = half.FSTAB.read_text()
        self.machine.files = {
            f"/{path.relative_to(self.root)}": path.read_text() for path in self.root.glob("etc/drbd.d/*.res")
        }
        under_way = journal.operations().values()
        self.machine.verbs = frozenset(operation.verb for operation in under_way)
        for operation in under_way:
            if "here" in operation.parameters:
                self.machine.operation = operation

    def publish(self) -> None:
        """What is seen without a program."""
        seen = self.machine.host()
        self.addresses.clear()
        self.addresses.update(seen.addresses)
        group = host.DEVICES / "local"
        group.mkdir(parents=True, exist_ok=True)
        for device in group.iterdir():
            device.unlink()
        for volume in seen.active:
            (group / volume.name).touch()
        if self.machine.blank:
            os.truncate(group / self.machine.here.volume.name, self.machine.volumes[self.machine.here.volume])
        host.PROC_DRBD.write_text(f"version: {seen.drbd_version} (api:1/proto:86-101)\n" if seen.drbd_version else "")
        host.MOUNTINFO.write_text(
            "".join(f"1 1 {m.devno[0]}:{m.devno[1]} / {m.target} rw - {m.fstype} {m.source}\n" for m in seen.mounts)
        )

    def power_cut(self) -> None:
        self.collect()
        self.machine.power_cut()
        self.publish()

    def boot(self) -> None:
        """After a power cut: what the units bring up, and what fstab mounts after that."""
        self.power_cut()
        shutil.rmtree(host.CONSULTATIONS, ignore_errors=True)
        site = config.load()
        reconcile(site, site.resources, lambda _: None)
        if self.machine.kernel and self.machine.kernel.primary:
            targets = filesystem.fstab_targets(self.machine.fstab, DEVICE_NAMES)
            self.machine.mounts += [(self.machine.here.device, target) for target in targets]
            self.publish()

    def _look(self, argv: tuple[str, ...]) -> Answer:
        seen = self.machine.host()
        if argv == lvm.REPORT:
            return Answer(self._report())
        if argv == drbd.EVENTS:
            self._peer_answers()
            said = "".join(_events(resource) for resource in seen.drbd.values()) + "exists -\n"
            self.ahead -= self.ahead > 0
            return Answer(said.replace("replication:Established", "replication:Ahead") if self.ahead else said)
        if argv[0] == "env":
            need(argv == drbd_dump.dump("/etc/drbd.conf"), "drbdadm reads what it always reads")
            return self.dumped
        if argv[0] == "blkid":
            served = self.machine.kernel and self.machine.kernel.primary
            nothing = not self.machine.fstype or (argv[-1] == self.machine.here.device and not served)
            return Answer("", 2) if nothing else Answer(f"LABEL=test_a\nTYPE={self.machine.fstype}\n")
        if argv[0] == "drbdmeta":
            if self.machine.kernel and self.machine.kernel.attached:
                return Answer("", 20, f"Device '{argv[1]}' is configured!")
            found = self.machine.metadata
            return Answer(f"{found.current:016X}:{0:016X}:{0:016X}:{0:016X}:0:0:0:0\n") if found else Answer("", 1)
        known = self.machine.enabled if "is-enabled" in argv else self.machine.active
        return Answer("", 0 if known else 1)

    def _peer_answers(self) -> None:
        """To a resize; what this look shows is from just before."""
        self.resize_looks -= self._new_size > 0
        if self._new_size and self.resize_looks == 0:
            self.machine.size, self._new_size = self._new_size, 0

    def _report(self) -> str:
        seen = self.machine.host()
        volumes = [
            {
                "lv_name": volume.name.name, "lv_size": f"{volume.size_bytes}",
                "lv_tags": ",".join(volume.tags),
                "lv_active": "active", "lv_device_open": "open" if volume.open else "",
                "lv_kernel_major": f"{volume.devno[0]}", "lv_kernel_minor": f"{volume.devno[1]}",
                "origin": volume.origin, "pool_lv": volume.pool, "data_percent": "",
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


def killed(
    start: Callable[[], World],
    run: Callable[[], object],
    *,
    at_least: int,
    late: bool = False,
    at: Callable[[int], None] | None = None,
) -> Iterator[World]:
    """A new world in which ``run`` was killed at its first changing program, one at its second, and so on to its last.

    ``late`` is after the program instead of before it. Where it is to die at something else than a program, ``at(n)``
    has it die at the n-th of these, and ``at(0)`` at none. With fewer deaths than ``at_least`` too little was tried.
    """
    for number in range(1, 60):
        world = start()
        if at:
            at(number)
        else:
            world.kill_at = -number if late else number
        with suppress(Killed):
            run()
            need(number > at_least, "there are more steps than that")
            return
        if at:
            at(0)
        world.kill_at = None
        yield world
        forget(world.root)
    pytest.fail("there is no end")


def forget(root: Path) -> None:
    """A new machine in the same place."""
    for path in [*root.glob("etc/drbd.d/*"), *root.glob("etc/systemd/**/*.conf"), *journal.STATE.rglob("*.json*")]:
        path.unlink()


def _events(seen: DrbdResource) -> str:
    lines = [f"exists resource name:{seen.name} role:{seen.role} suspended:no"]
    lines += [
        f"exists device name:{seen.name} volume:0 minor:{v.minor} disk:{v.disk} size:{v.size_bytes // 1024}"
        for v in seen.volumes
    ]
    for line in seen.connections:
        name = f"name:{seen.name} peer-node-id:0 conn-name:{line.peer}"
        lines.append(f"exists connection {name} connection:{line.state} role:{line.role}")
        lines += [
            f"exists peer-device {name} volume:0 replication:{d.replication} peer-disk:{d.disk}" for d in line.devices
        ]
    return "\n".join(lines) + "\n"
