"""Catch what the programs of two real machines print; as root, with no other lab running, from the repository:

    /usr/bin/python3 -m tests.data.capture [DIRECTORY [PART …]]

The parts are before_drbd, snapshots, uevents, first_sync, come_and_go and states. All of them take about a quarter
of an hour. Files are named STATE-MACHINE, as the machine's programs printed them.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from tests.lab import product
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.stages import CLEAN, ENROLLED, REPLICATING

from drbd_offsite.tools import drbd, filesystem, lvm

META = "/dev/local/drbd_meta"


class Catcher:
    def __init__(self, lab: Lab, target: Path) -> None:
        self.lab, self.target = lab, target
        self.version = ""

    def save(self, path: str, text: str) -> None:
        file = self.target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def catch(self, machine: Machine, path: str, *argv: str) -> None:
        self.save(path, machine.run(shlex.join(argv), check=False).stdout)

    def drbd(self, state: str) -> None:
        """/proc/drbd and events2 of both machines."""
        for machine in self.lab.machines:
            proc = machine.run("cat /proc/drbd").stdout
            self.version = drbd.parse_proc(proc).version
            self.save(f"drbd/{self.version}/{state}-{machine.name}.proc", proc)
            self.catch(machine, f"drbd/{self.version}/{state}-{machine.name}.events2", *drbd.EVENTS)

    def look(self, state: str) -> None:
        """What `host.survey` looks at beside DRBD."""
        for machine in self.lab.machines:
            self.catch(machine, f"lvm/{state}-{machine.name}.json", *lvm.REPORT)
            self.catch(machine, f"mountinfo/{state}-{machine.name}.txt", "cat", "/proc/self/mountinfo")

    def listen(self, name: str, *argv: str) -> None:
        """Have a program that goes on printing run on both machines, until `heard`."""
        for machine in self.lab.machines:
            program = f"exec {shlex.join(argv)} >/root/{name}"
            machine.run(f"systemd-run --quiet --collect --unit=capture-{name} /bin/sh -c {shlex.quote(program)}")
            machine.wait_for("it listens", f"systemctl is-active --quiet capture-{name}", 10)

    def heard(self, name: str, directory: str, state: str, *machines: Machine) -> None:
        """End what `listen` has begun, and keep what it printed."""
        for machine in self.lab.machines:
            machine.run(f"udevadm settle; sleep 2; systemctl stop capture-{name}")
            if machine in (machines or self.lab.machines):
                suffix = "txt" if name == "uevents" else name
                self.save(f"{directory}/{state}-{machine.name}.{suffix}", machine.run(f"cat /root/{name}").stdout)

    def identifiers(self, state: str, machine: Machine, index: int = 0) -> None:
        done = machine.run(f"drbdmeta 9 v08 {META} {index} get-gi", check=False)
        self.save(f"drbdmeta/{state}-{machine.name}.txt", done.stdout)
        self.save(f"drbdmeta/{state}-{machine.name}.exit", f"{done.returncode}\n{done.stderr}")


def before_drbd(catcher: Catcher) -> None:
    lab = catcher.lab
    lab.enter(CLEAN)
    catcher.look("clean")
    for line in (
        "lvcreate -q -y -L 12M -n in-active+x local && lvchange -an local/in-active+x",
        "lvchange --addtag @a --addtag b local/test_a && mount /dev/local/test_a /mnt",
        "truncate -s 64M /root/pv && vgcreate -q second-group $(losetup --show -f /root/pv)",
    ):
        lab.server.run(line)
    catcher.look("busy")
    catcher.catch(lab.server, "blkid/lab-ext4.txt", *filesystem.identity("/dev/local/test_a"))
    lab.server.run("pvcreate -q $(losetup --show -f $(truncate -s 64M /root/pv2; echo /root/pv2))")
    lab.backup.run("vgremove -q -y local")
    catcher.look("orphan-pv")
    lab.backup.run("pvremove -q -y /dev/vdb")
    catcher.look("no-lvm")


def snapshots(catcher: Catcher) -> None:
    """Thick ones, one of which has overflowed, and thin ones."""
    server = catcher.lab.server
    catcher.lab.enter(CLEAN)
    for line in (
        "lvcreate -q -y --snapshot --size 32M --addtag a --name kept local/test_a",
        "lvcreate -q -y --snapshot --size 8M --name overflowed local/test_a",
        "dd if=/dev/urandom of=/dev/local/test_a bs=1M count=12 oflag=direct status=none",
        "lvcreate -q -y --type thin-pool --size 64M --name pool local",
        "lvcreate -q -y --virtualsize 32M --thinpool pool --name thin local",
        "dd if=/dev/urandom of=/dev/local/thin bs=1M count=8 oflag=direct status=none",
        "lvcreate -q -y --snapshot --name thin_snapshot local/thin",
    ):
        server.run(line)
    catcher.catch(server, "lvm/snapshots-server.json", *lvm.REPORT)


def uevents(catcher: Catcher) -> None:
    """What udev announces with our rule installed: volumes and tunnels that come."""
    lab = catcher.lab
    monitor = ("udevadm", "monitor", "--udev", "--property")

    def scene(state: str, machine: Machine, *lines: str) -> None:
        lab.enter(ENROLLED)
        catcher.listen("uevents", *monitor)
        for line in lines:
            machine.run(line)
        catcher.heard("uevents", "udev", state, machine)

    scene("volume-activated", lab.server, "lvchange -an local/test_a", "sleep 1", "lvchange -ay local/test_a")
    scene("volume-created", lab.backup, "lvcreate -q -y -L 12M -n other local", "lvcreate -q -y -L 12M -n test_a local")
    scene("tunnel-up", lab.backup, "systemctl restart 'openvpn-server@*'", "sleep 5")


def first_sync(catcher: Catcher) -> None:
    lab = catcher.lab
    lab.enter(ENROLLED)
    catcher.look("enrolled")
    lab.server.run(f"drbd-offsite add --no-wait {product.VOLUME}", timeout=600)
    lab.server.wait_for("the sync runs", 'grep -q "sync\'ed" /proc/drbd', 60)
    catcher.drbd("first-sync")
    lab.server.run("drbdadm pause-sync test_a")
    catcher.drbd("paused-sync")
    lab.server.run("drbdadm resume-sync test_a")


def states(catcher: Catcher) -> None:
    lab = catcher.lab
    server, backup = lab.server, lab.backup

    def scene(change: Callable[[], None]) -> None:
        lab.enter(REPLICATING)
        change()

    def well() -> None:
        catcher.drbd("up-to-date")
        server.run(f"mount {product.DEVICE} /mnt && cp -a /usr/share/doc /mnt && sync")
        catcher.look("replicating")
        catcher.drbd("in-use")
        catcher.identifiers("attached", server)
        product.await_up_to_date(lab)
        server.run("drbdadm verify test_a")
        server.wait_for("the verify runs", "grep -q verified: /proc/drbd", 60)
        catcher.drbd("verify")

    def cut() -> None:
        server.run(f"mount {product.DEVICE} /mnt")
        lab.cut_link()
        server.wait_for("the peer is missed", "grep -q WFConnection /proc/drbd", 90)
        backup.wait_for("the peer is missed", "grep -q WFConnection /proc/drbd", 90)
        server.run("cp -a /usr/share/zoneinfo /mnt && sync")
        catcher.drbd("link-cut")
        server.run("umount /mnt && drbdadm down test_a")
        catcher.identifiers("written-alone", server)
        backup.run("drbdadm down test_a")
        catcher.identifiers("left-behind", backup)
        catcher.drbd("down")

    def no_tunnel() -> None:
        backup.run("systemctl stop drbd-offsite-watch 'openvpn-server@*'")
        backup.wait_for("it stands alone", "grep -q StandAlone /proc/drbd", 60)
        server.wait_for("the peer is missed", "grep -q WFConnection /proc/drbd", 90)
        catcher.drbd("tunnel-stopped")

    def slow() -> None:
        server.run("tc qdisc add dev tun0 root tbf rate 2mbit burst 32k latency 400ms")
        server.run(f"dd if=/dev/urandom of={product.DEVICE} bs=1M count=64 oflag=direct status=none")
        server.wait_for("it goes ahead", "grep -q Ahead /proc/drbd", 60)
        catcher.drbd("ahead")

    def detached() -> None:
        server.run("systemctl stop drbd-offsite-watch; drbdadm detach test_a")
        catcher.drbd("detached")

    def split_brain() -> None:
        catcher.listen("changes", *drbd.CHANGES)
        lab.cut_link()
        for machine in lab.machines:
            machine.run("systemctl stop drbd-offsite-watch")
            machine.wait_for("the peer is missed", "grep -q WFConnection /proc/drbd", 90)
        backup.run("drbdadm primary test_a")
        for machine in lab.machines:
            machine.run(f"dd if=/dev/urandom of={product.DEVICE} bs=1M count=1 oflag=direct status=none")
        lab.mend_link()
        for machine in lab.machines:
            machine.wait_for("it stands alone", "grep -q StandAlone /proc/drbd", 120)
        catcher.drbd("split-brain")
        catcher.heard("changes", f"drbd/{catcher.version}", "split-brain")

    for change in (well, cut, no_tunnel, slow, detached, split_brain):
        print(change.__name__, flush=True)
        scene(change)


def come_and_go(catcher: Catcher) -> None:
    """What DRBD says while a connection is lost and comes back."""
    lab = catcher.lab
    lab.enter(REPLICATING)
    catcher.drbd("up-to-date")
    catcher.listen("changes", *drbd.CHANGES)
    lab.cut_link()
    for machine in lab.machines:
        machine.wait_for("the peer is missed", "grep -q WFConnection /proc/drbd", 90)
    lab.server.run(f"dd if=/dev/urandom of={product.DEVICE} bs=1M count=4 oflag=direct status=none")
    lab.mend_link()
    product.await_up_to_date(lab)
    catcher.heard("changes", f"drbd/{catcher.version}", "link-came-back")


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    lab = Lab.start()
    try:
        catcher = Catcher(lab, target)
        for part in (before_drbd, snapshots, uevents, first_sync, come_and_go, states):
            if part.__name__ in sys.argv[2:] or not sys.argv[2:]:
                print(part.__name__, flush=True)
                part(catcher)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
