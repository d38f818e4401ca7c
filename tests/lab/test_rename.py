"""Another name on both machines: for what is mounted, for what waits for it, and over a power cut in the middle."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .stages import ENROLLED, REPLICATING
from .test_bad_days import REFUSED, UNREACHABLE, refused

pytestmark = pytest.mark.thorough

CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"
NEW = "mail"


def mounted(lab: Lab) -> None:
    """As ``add --remount`` leaves it: its line in fstab mounts the device."""
    lab.enter(ENROLLED)
    lab.server.run("mkdir /srv/data && echo 'LABEL=test_a  /srv/data\text4 noatime 0 2 # ours' >>/etc/fstab")
    lab.server.run("systemctl daemon-reload && mount /srv/data")
    lab.server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)


def has_one_name(machine: Machine, name: str = NEW, old: str = "test_a") -> None:
    """In the configuration, for drbdadm, systemd, udev and the kernel; and nothing has the other one."""
    machine.run(f"grep -q '\\[\\[{name}\\]\\]' {CONFIG} && ! grep '\\[\\[{old}\\]\\]' {CONFIG}")
    machine.run(f"test -e /etc/drbd.d/0_{name}.res && ! ls /etc/drbd.d/*_{old}.res 2>/dev/null")
    machine.run(f"test -b /dev/drbd/by-res/{name}/0 && ! test -e /dev/drbd/by-res/{old}")
    machine.run(f"drbdsetup events2 --now | grep -q 'name:{name} ' && ! drbdsetup events2 --now | grep 'name:{old} '")
    machine.run(f"systemctl is-enabled drbd-offsite@{name} && ! systemctl is-enabled drbd-offsite@{old}")
    machine.wait_for("its unit runs", f"systemctl is-active drbd-offsite@{name}")
    machine.run(f"! systemctl is-active drbd-offsite@{old} && ! systemctl is-failed drbd-offsite@{old}")
    machine.run(f"! ls -d /etc/systemd/system/drbd-offsite@{old}.service.d 2>/dev/null")
    state = product.status(machine)
    assert [resource["name"] for resource in state["resources"]] == [name]
    assert state["operations"] == []


def test_a_mounted_resource_gets_another_name_and_is_there_after_a_boot(lab: Lab) -> None:
    mounted(lab)
    server = lab.server
    fstab = server.run("cat /etc/fstab").stdout
    whole = "dmesg | grep -c 'full sync required'; true"
    synced = [machine.run(whole).stdout for machine in lab.machines]
    numbers = [machine.run(f"grep -E '^ *(minor|port|metadata|volume) ' {CONFIG}").stdout for machine in lab.machines]
    refused(server, f"drbd-offsite rename test_a {NEW}", REFUSED, "is mounted at /srv/data", "--remount")
    assert product.status(server)["operations"] == []
    server.run(f"drbd-offsite rename test_a {NEW} --remount", timeout=300)
    assert "noatime" in server.run("findmnt -n -o OPTIONS /srv/data").stdout
    volume.check(server, "/srv/data")
    product.await_up_to_date(lab, NEW)
    for machine in lab.machines:
        has_one_name(machine)
    after = [machine.run(f"grep -E '^ *(minor|port|metadata|volume) ' {CONFIG}").stdout for machine in lab.machines]
    assert after == numbers
    by_res, unit = "/dev/drbd/by-res/{}/0", "drbd-offsite@{}.service"
    changed = fstab.replace(by_res.format("test_a"), by_res.format(NEW))
    assert server.run("cat /etc/fstab").stdout == changed.replace(unit.format("test_a"), unit.format(NEW))
    assert [machine.run(whole).stdout for machine in lab.machines] == synced
    server.run("cp /bin/bash /srv/data/ && sync")
    server.reboot()
    volume.check(server, "/srv/data")
    server.run("cmp /bin/bash /srv/data/bash")
    product.await_up_to_date(lab, NEW, deadline=180)
    for machine in lab.machines:
        has_one_name(machine)
    server.run("umount /srv/data")
    product.await_up_to_date(lab, NEW)
    assert product.checksum(server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


def test_a_power_cut_in_the_middle_serves_the_data_and_the_same_command_goes_on(lab: Lab) -> None:
    """A drbdadm that never ends when it is to make the new resource: the old one is gone by then."""
    mounted(lab)
    server = lab.server
    script = f"""#!/bin/sh
    if test "$*" = "new-resource {NEW}" && ! test -e /root/once; then touch /root/once; sync; sleep 600; fi
    exec /root/real/drbdadm "$@"
    """
    server.run("mkdir /root/real && mv /usr/sbin/drbdadm /root/real/")
    server.run("cat >/usr/sbin/drbdadm && chmod 755 /usr/sbin/drbdadm", input=script)
    server.run(f"nohup drbd-offsite rename test_a {NEW} --remount >/root/said 2>&1 &")
    server.wait_for("the old name is gone", "test -e /root/once", 120)
    server.reset()
    server.wait_for("it is mounted", "mountpoint -q /srv/data", 120)
    volume.check(server, "/srv/data")
    assert product.resource(server, NEW)["role"] == "Primary"
    assert [operation["verb"] for operation in product.status(server)["operations"]] == ["rename"]
    product.await_tunnel(lab)
    server.run(f"drbd-offsite rename test_a {NEW}", timeout=300)
    volume.check(server, "/srv/data")
    product.await_up_to_date(lab, NEW, deadline=180)
    for machine in lab.machines:
        has_one_name(machine)


def test_what_is_held_stays_held_and_what_waits_for_it_waits_for_it_still(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run("lvcreate -q -y -L 8M -n test_b local && drbd-offsite add local/test_b", timeout=300)
    server.run("drbd-offsite disconnect test_a --reason 'the line is needed'")
    server.run(f"drbd-offsite rename test_a {NEW}", timeout=300)
    assert f'"{NEW}/0"' in server.run("cat /etc/drbd.d/1_test_b.res").stdout
    said = server.run("drbdsetup show test_b").stdout
    assert int(said.partition("resync-after")[2].split()[0].rstrip(";")) == 0, said
    (hold,) = product.resource(server, NEW)["holds"]
    assert (hold["set_by"], hold["reason"]) == ("disconnect", "the line is needed")
    assert product.resource(server, NEW)["role"] == "Primary"
    server.run(f"drbd-offsite connect {NEW}")
    product.await_up_to_date(lab, NEW)
    product.await_up_to_date(lab, "test_b")


def test_renaming_is_refused_before_anything_is_touched(lab: Lab) -> None:
    lab.enter(REPLICATING)
    look = f"cat {CONFIG} /etc/drbd.d/*.res; cat /proc/drbd | grep cs:; ls /etc/systemd/system"
    before = [machine.run(look).stdout for machine in lab.machines]
    refused(lab.server, "drbd-offsite rename test_a ../x", REFUSED, "cannot be a resource's name")
    refused(lab.server, "drbd-offsite rename test_a test_a", REFUSED, "has that name already")
    refused(lab.server, "drbd-offsite rename nothing x", REFUSED, "no resource nothing")
    refused(lab.backup, f"drbd-offsite rename test_a {NEW}", REFUSED, "is for the server")
    # Held open by something that is no mount.
    lab.server.run(f"sleep 600 <{product.DEVICE} >/dev/null 2>&1 & echo $! >/root/user")
    said = lab.server.run(f"drbd-offsite rename test_a {NEW}", check=False, timeout=300)
    assert said.returncode == 1, said
    lab.server.run("kill $(cat /root/user)")
    assert [machine.run(look).stdout for machine in lab.machines] == before
    lab.cut_link()
    refused(lab.server, f"drbd-offsite rename test_a {NEW}", UNREACHABLE, "backup")
    for machine in lab.machines:
        assert product.status(machine)["operations"] == []
