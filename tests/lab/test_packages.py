"""What apt does to a machine: installing, reconfiguring, upgrading, swapping, removing, purging."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .stages import CLEAN, INSTALLED, REPLICATING

CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"
APT = "DEBIAN_FRONTEND=noninteractive apt-get --yes"


def _replication_was_not_touched(lab: Lab, before: str) -> None:
    assert _connection_id(lab.server) == before
    assert "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate" in lab.server.run("cat /proc/drbd").stdout


def _connection_id(machine: Machine) -> str:
    """Changes with every reconnect: the two ends of DRBD's TCP connections."""
    return machine.run(
        "ss -Htn state established '( sport = 7789 or dport = 7789 )' | awk '{print $3, $4}' | sort"
    ).stdout


@pytest.mark.thorough
def test_wrong_answers_leave_a_machine_plainly_not_configured(lab: Lab) -> None:
    lab.enter(CLEAN)
    said = product.install(lab.server, {"volume_group": "local", "server_name": "not a name", "port": "70000"})
    lines = [line for line in said.splitlines() if "not configured" in line]
    assert len(lines) == 1, said
    assert "dpkg-reconfigure" in lines[0]
    lab.server.run(f"test ! -e {CONFIG}")
    for verb in ("status", "doctor"):
        done = lab.server.run(f"drbd-offsite {verb}", check=False)
        assert done.returncode == 1
        assert "not configured" in done.stderr
    lab.server.run("dpkg --audit && systemctl is-active drbd-offsite-watch || test $? = 3")


@pytest.mark.thorough
def test_an_admins_edit_survives_reconfigure_and_nothing_else_changes(lab: Lab) -> None:
    lab.enter(INSTALLED)
    lab.server.run(f"sed -i 's/link_speed = 100/link_speed = \"250\"  # measured/' {CONFIG}")
    before = lab.server.run(f"sha256sum {CONFIG}").stdout
    lab.server.run("DEBIAN_FRONTEND=noninteractive dpkg-reconfigure drbd-offsite-server", timeout=300)
    assert lab.server.run(f"sha256sum {CONFIG}").stdout == before


def test_the_packages_life_does_not_touch_what_runs(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run(f"mount {product.DEVICE} /mnt")
    connection = _connection_id(server)
    server.run(f"{APT} install --reinstall /root/*.deb", timeout=300)
    _replication_was_not_touched(lab, connection)
    server.run("DEBIAN_FRONTEND=noninteractive dpkg-reconfigure drbd-offsite-server", timeout=300)
    _replication_was_not_touched(lab, connection)
    server.run(f"{APT} remove drbd-offsite-server drbd-offsite-common", timeout=300)
    _replication_was_not_touched(lab, connection)
    server.run(f"test -e {CONFIG} && test -e /etc/drbd.d/0_test_a.res")
    server.run(f"{APT} install /root/*.deb", timeout=300)
    _replication_was_not_touched(lab, connection)
    assert product.resource(server)["level"] == "ok"
    server.run(f"{APT} purge drbd-offsite-server drbd-offsite-common", timeout=300)
    _replication_was_not_touched(lab, connection)
    server.run("test ! -e /etc/drbd-offsite && test ! -e /etc/drbd.d/0_test_a.res && test ! -e /var/lib/drbd-offsite")
    volume.check(server, "/mnt")
    server.run("umount /mnt && lvs local/drbd_meta local/test_a")


@pytest.mark.thorough
def test_a_swap_of_flavours_keeps_the_new_ones_files(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.install(lab.backup, flavour="server")
    lab.backup.run("dpkg --purge drbd-offsite-backup")
    assert "flavour = " in lab.backup.run(f"cat {CONFIG}").stdout
    lab.backup.run("test -x /usr/bin/drbd-offsite && test -d /etc/drbd-offsite")


def test_no_secret_is_left_where_others_look(lab: Lab) -> None:
    lab.enter(REPLICATING)
    for machine in lab.machines:
        secret = machine.run("cat /etc/drbd-offsite/keys/*/drbd.secret").stdout.strip()
        places = "/var/cache/debconf /var/log /var/lib/drbd-offsite /etc/drbd-offsite/drbd-offsite.conf"
        assert machine.run(f"grep -rl {secret} {places}", check=False).stdout == ""
        assert secret not in machine.run("journalctl --no-pager", timeout=120).stdout
        said = machine.run(
            "drbd-offsite status --json; drbd-offsite render --diff; drbd-offsite events; drbd-offsite plan -v 2>&1"
        )
        assert secret not in said.stdout
        open_to_all = machine.run(
            "find /etc/drbd-offsite/keys /etc/drbd.d/*_*.res /etc/openvpn/server -type f -perm /077"
        )
        assert open_to_all.stdout == ""


@pytest.mark.thorough
def test_a_backup_can_be_enrolled_by_its_installation(lab: Lab) -> None:
    lab.enter(CLEAN)
    product.install(lab.server)
    lab.server.run("drbd-offsite invite --one-line >/root/line && drbd-offsite invite >/root/file 2>/dev/null")
    lab.backup.run("umask 077; cat >/root/backup.invite", input=lab.server.run("cat /root/file").stdout)
    said = product.install(lab.backup, {"volume_group": "local", "enrolment_file": "/root/backup.invite"})
    assert "Enrolled with server" in said, said
    lab.backup.run("ping -c 1 -W 5 10.89.33.1")


@pytest.mark.thorough
def test_both_ends_in_one_go_over_ssh(lab: Lab) -> None:
    lab.enter(INSTALLED)
    lab.server.run("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    key = lab.server.run("cat /root/.ssh/id_ed25519.pub").stdout
    lab.backup.run("cat >>/root/.ssh/authorized_keys", input=key)
    lab.server.run("ssh-keyscan -t ed25519 backup >/root/.ssh/known_hosts")
    done = lab.server.run("drbd-offsite invite --ssh root@backup", timeout=300)
    assert "Enrolled with server" in done.stderr
    lab.server.run("ping -c 1 -W 5 10.89.33.2")
