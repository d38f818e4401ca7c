"""Bad input and bad days: each refused or survived, with a clear word and the way on, and nothing lost."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .ssh import Result
from .stages import ENROLLED, INSTALLED, REPLICATING

REFUSED, UNREACHABLE, FAILED, USAGE = 3, 4, 1, 2


def refused(machine: Machine, command: str, code: int, *words: str) -> Result:
    """Run a command that must fail with a code and say certain words, and no traceback."""
    done = machine.run(command, check=False, timeout=300)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    for word in words:
        assert word in done.stdout + done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


# -- enrolment and the tunnel --------------------------------------------------------------------


def edit_invitation(lab: Lab, line: str) -> None:
    """Change the server's configuration before it invites."""
    lab.server.run(f"sed -i 's/^ *{line.partition(' = ')[0]} = .*/{line}/' /etc/drbd-offsite/drbd-offsite.conf")


def test_a_wrong_port_is_named_and_the_same_invitation_still_works(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    lab.server.run("nft add table t && nft 'add chain t c { type filter hook input priority 0; }'")
    lab.server.run("nft add rule t c udp dport 1194 drop")
    refused(lab.backup, "drbd-offsite join /root/backup.invite", UNREACHABLE, "UDP port 1194", "firewall")
    assert "join" in lab.backup.run("drbd-offsite status", check=False).stdout
    lab.server.run("nft delete table t")
    lab.backup.run("drbd-offsite join /root/backup.invite", timeout=180)


@pytest.mark.thorough
def test_a_wrong_fingerprint_is_named(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    lab.server.run("drbd-offsite invite >/root/newer")
    refused(lab.backup, "drbd-offsite join /root/backup.invite", UNREACHABLE, "key was refused", "newest invitation")


@pytest.mark.thorough
def test_both_sides_dialling_is_named(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    edit_invitation(lab, "dials = server")
    edit_invitation(lab, "reachable_as = 192.0.2.2")
    lab.server.run("drbd-offsite render && systemctl restart openvpn-server@drbd-offsite-backup")
    refused(lab.backup, "drbd-offsite join /root/backup.invite", UNREACHABLE, "both sides dial")


@pytest.mark.thorough
def test_the_server_can_be_the_one_that_dials(lab: Lab) -> None:
    lab.enter(INSTALLED)
    edit_invitation(lab, "dials = server")
    edit_invitation(lab, "reachable_as = 192.0.2.2")
    product.enrol(lab)
    lab.server.run("ping -c 1 -W 5 10.89.33.2")


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["static-key", "wireguard", "none"])
def test_every_tunnel_mode_enrols(lab: Lab, mode: str) -> None:
    lab.enter(INSTALLED)
    edit_invitation(lab, f"tunnel = {mode}")
    if mode == "none":
        edit_invitation(lab, "server_address = 192.0.2.1")
        edit_invitation(lab, "backup_address = 192.0.2.2")
        edit_invitation(lab, "device = wan0")
    if mode == "wireguard":
        edit_invitation(lab, "device = wg0")
    product.enrol(lab)
    lab.server.run(f"drbd-offsite add --no-wait {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_tunnel_whose_process_is_killed_comes_back(lab: Lab) -> None:
    """With its data channel in the kernel (OpenVPN 2.7) tun0 outlives the process, and stays in the way of none."""
    lab.enter(REPLICATING)
    for machine in lab.machines:
        pid = machine.run("pidof openvpn").stdout
        machine.run("pkill -KILL -x openvpn")
        machine.wait_for("systemd starts it again", f"pid=$(pidof openvpn) && test $pid != {pid.strip()}")
        product.await_tunnel(lab)
        lab.server.run(f"dd if=/dev/zero of={product.DEVICE} bs=4k count=8 conv=fsync status=none")
        product.await_up_to_date(lab)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


@pytest.mark.thorough
def test_an_invitation_is_good_once(lab: Lab) -> None:
    lab.enter(ENROLLED)
    refused(lab.backup, "drbd-offsite join /root/backup.invite", REFUSED, "has been used")


DAMAGE = {
    "head -c 700": "cut off",
    "sed s/10.89.33.1/10.89.33.9/": "altered",
    "cat /etc/hosts -": "altered",
    "true": "no invitation",
}


@pytest.mark.thorough
def test_a_damaged_invitation_is_refused_and_changes_nothing(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    look = "find /etc -type f | sort | xargs sha256sum | sha256sum"
    before = lab.backup.run(look).stdout
    for damage, word in DAMAGE.items():
        lab.backup.run(f"cat /root/backup.invite | {damage} >/root/damaged")
        refused(lab.backup, "drbd-offsite join /root/damaged", REFUSED, word)
    assert lab.backup.run(look).stdout == before


@pytest.mark.thorough
def test_an_expired_invitation_is_refused(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    lab.backup.run("date --set='+25 hours'")
    refused(lab.backup, "drbd-offsite join /root/backup.invite", REFUSED, "expired")


def test_join_that_was_killed_goes_on(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    # Its answer to the enrolment is lost: the server has taken the backup's own keys already.
    lab.backup.run("drbd-offsite join /root/backup.invite >/dev/null 2>&1 & echo $! >/root/pid")
    lab.server.wait_for("the server has enrolled it", "grep -q 'hostname = backup' /etc/drbd-offsite/drbd-offsite.conf")
    lab.backup.run("kill -9 $(cat /root/pid)")
    lab.backup.run("drbd-offsite join /root/backup.invite", timeout=300)
    lab.server.run("ping -c 1 -W 5 10.89.33.2")


# -- add -----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_volumes_that_cannot_be_taken_are_refused_with_the_reason(lab: Lab) -> None:
    lab.enter(ENROLLED)
    server = lab.server
    refused(server, "drbd-offsite add /dev/sda1", USAGE, "GROUP/NAME")
    refused(server, "drbd-offsite add local/nothing", REFUSED, "no volume local/nothing")
    refused(server, "drbd-offsite add nowhere/test_a", REFUSED, "no volume group nowhere")
    server.run(f"mount {product.VOLUME} /mnt")
    refused(server, f"drbd-offsite add {product.VOLUME}", REFUSED, "mounted at /mnt", "--remount")
    server.run("umount /mnt")
    server.run("echo 'LABEL=test_a /mnt ext4 noauto 0 0' >>/etc/fstab")
    refused(server, f"drbd-offsite add {product.VOLUME}", REFUSED, "fstab")
    server.run("sed -i '/test_a/d' /etc/fstab")
    server.run("lvcreate -q -y -L 64M -n swap local && mkswap /dev/local/swap && swapon /dev/local/swap")
    refused(server, "drbd-offsite add local/swap", REFUSED, "in use")
    refused(lab.backup, "drbd-offsite add local/x", REFUSED, "for the server")
    assert product.status(server)["resources"] == product.status(server)["operations"] == []


@pytest.mark.thorough
def test_a_replicated_volume_is_not_added_twice(lab: Lab) -> None:
    lab.enter(REPLICATING)
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "replicated already")
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_full_or_missing_volume_group_is_refused_before_anything_is_begun(lab: Lab) -> None:
    lab.enter(ENROLLED)
    lab.backup.run("lvcreate -q -y -l 100%FREE -n all local")
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "on backup", "free")
    lab.backup.run("vgrename local other")
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "volume group")
    lab.backup.run("vgrename other local && lvremove -q -y local/all")
    lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_volume_of_that_name_on_the_backup_is_never_overwritten(lab: Lab) -> None:
    lab.enter(ENROLLED)
    lab.backup.run("lvcreate -q -y -L 300M -n test_a local && mkfs.ext4 -q /dev/local/test_a")
    before = product.checksum(lab.backup, product.VOLUME)
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "exists already on backup")
    assert product.checksum(lab.backup, product.VOLUME) == before
    assert product.status(lab.server)["operations"] == product.status(lab.backup)["operations"] == []
    lab.backup.run("lvrename local test_a old")
    lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_metadata_that_nobody_owns_is_shown_and_kept(lab: Lab) -> None:
    lab.enter(ENROLLED)
    lab.server.run("modprobe drbd && lvcreate -q -y -L 128M -n drbd_meta local")
    lab.server.run("drbdmeta --force 9 v08 /dev/local/drbd_meta 0 create-md </dev/null")
    lab.server.run("drbdmeta --force 9 v08 /dev/local/drbd_meta 0 dump-md >/root/md </dev/null")
    lab.server.run("sed -i '0,/0x0000000000000004/s//0x1234567890ABCDEF/' /root/md")
    lab.server.run("yes yes | drbdmeta --force 9 v08 /dev/local/drbd_meta 0 restore-md /root/md")
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "1234567890ABCDE", "--overwrite-metadata")
    lab.server.run(f"drbd-offsite add --overwrite-metadata {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_peer_that_vanishes_in_the_middle_of_add_is_survived(lab: Lab) -> None:
    lab.enter(ENROLLED)
    lab.server.run(f"(drbd-offsite add {product.VOLUME} >/root/said 2>&1; echo $? >/root/code) >/dev/null 2>&1 &")
    lab.backup.wait_for("the backup is at work", "test -e /dev/local/test_a")
    lab.backup.power_off()
    lab.server.wait_for("add gives up", "test -s /root/code", 120)
    assert lab.server.run("cat /root/code").stdout.strip() == str(UNREACHABLE), lab.server.run("cat /root/said").stdout
    assert "add was begun" in lab.server.run("drbd-offsite status", check=False).stdout
    lab.backup.start()
    product.await_tunnel(lab)
    lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)
    assert product.status(lab.server)["operations"] == product.status(lab.backup)["operations"] == []


@pytest.mark.thorough
def test_unequal_sizes_end_in_a_copy_that_is_large_enough(lab: Lab) -> None:
    lab.enter(ENROLLED)
    # Extents of 32 MiB there: the copy cannot have the size of 104 MiB, so it has the next larger one.
    lab.backup.run("vgremove -q -y local && vgcreate -q -s 32M local /dev/vdb")
    lab.server.run("lvextend -q -L 104M local/test_a")
    lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=300)
    product.await_up_to_date(lab)
    sectors = "cat /sys/block/drbd0/size"
    assert lab.server.run(sectors).stdout == lab.backup.run(sectors).stdout == f"{104 * 2048}\n"
    lab.server.run(f"mount {product.DEVICE} /mnt")
    volume.check(lab.server, "/mnt")


# -- the configuration and the kernel --------------------------------------------------------------


@pytest.mark.thorough
def test_a_typo_in_the_configuration_is_named_and_nothing_is_applied(lab: Lab) -> None:
    lab.enter(REPLICATING)
    look = "cat /etc/drbd.d/* | sha256sum"
    before = lab.server.run(look).stdout
    lab.server.run(
        "sed -i 's/link_speed = 100/link_sped = 100/; s/port = 1194/port = 119400/' /etc/drbd-offsite/*.conf"
    )
    for verb in ("render", "status", "up", "doctor", "plan"):
        refused(lab.server, f"drbd-offsite {verb}", FAILED, "[[backup]] link_sped", "119400", "from 1 to 65535")
    assert lab.server.run(look).stdout == before
    assert "cs:Connected" in lab.server.run("cat /proc/drbd").stdout


@pytest.mark.thorough
def test_without_the_module_nothing_is_begun(lab: Lab) -> None:
    lab.enter(ENROLLED)
    for machine in lab.machines:
        machine.run("rmmod drbd; mv /lib/modules/$(uname -r)/kernel/drivers/block/drbd /root/ && depmod", check=False)
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "no DRBD module", "linux-image-amd64")
    refused(lab.server, "drbd-offsite doctor", FAILED, "no DRBD module")
    lab.server.run("mv /root/drbd /lib/modules/$(uname -r)/kernel/drivers/block/ && depmod")
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "The peer says", "no DRBD module")


RENUMBER = """
import pathlib, sys
module = pathlib.Path(sys.argv[1])
data = module.read_bytes().replace(b"8.4.11", b"12.0.1")
# A signature that does not fit is refused, none at all is not (scripts/sign-file.c: its size comes last).
mark = b"~Module signature appended~\\n"
if data.endswith(mark):
    size = int.from_bytes(data[-len(mark) - 4 : -len(mark)], "big")
    data = data[: -len(mark) - 12 - size]
module.write_bytes(data)
"""


@pytest.mark.thorough
def test_a_module_of_an_unknown_version_is_not_worked_with(lab: Lab) -> None:
    """The real module with another number in it, as a later line of development would show."""
    lab.enter(ENROLLED)
    lab.server.run(
        "rmmod drbd; cd /lib/modules/$(uname -r)/kernel/drivers/block/drbd && cat >/root/renumber && "
        "python3 /root/renumber drbd.ko && modprobe drbd && grep 12.0.1 /proc/drbd",
        input=RENUMBER,
    )
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "version 12.0.1", "does not know")
    refused(lab.server, "drbd-offsite doctor", FAILED, "version 12.0.1")
    assert product.status(lab.server)["operations"] == []


@pytest.mark.thorough
def test_a_volume_above_four_tebibytes_has_metadata_of_its_own(lab: Lab) -> None:
    lab.enter(ENROLLED)
    _above_four_tebibytes(lab)
    for machine in lab.machines:
        machine.wait_for("the first sync has begun", "grep -q cs:Sync /proc/drbd")
        assert machine.run("cat /sys/block/drbd0/size").stdout == f"{4200 * 2**21}\n"
        assert "large_drbd_meta" in machine.run("lvs --noheadings -o lv_name local").stdout
        assert '"/dev/local/large_drbd_meta";' in machine.run("cat /etc/drbd.d/0_large.res").stdout


def _above_four_tebibytes(lab: Lab) -> None:
    """A resource called large, whose first sync has just begun."""
    for machine in lab.machines:
        machine.run("truncate -s 5T /root/large.img && losetup /dev/loop7 /root/large.img", timeout=300)
        machine.run("pvcreate -q /dev/loop7 && vgextend -q local /dev/loop7")
    # Not empty, or the backup's would be made so: the disk below it has no room for that.
    lab.server.run("lvcreate -q -y -L 4200G -n large local && printf x | dd of=/dev/local/large conv=notrunc,fsync")
    lab.server.run("drbd-offsite add --no-wait local/large", timeout=900)


@pytest.mark.thorough
def test_it_grows_with_its_metadata(lab: Lab) -> None:
    lab.enter(ENROLLED)
    _above_four_tebibytes(lab)
    # The first sync of nothing would take days: the two are called equal by hand, as drbdsetup(8) has it.
    lab.both(lambda machine: machine.run("drbd-offsite down large"))
    for machine in lab.machines:
        # They are made with room for twice the size; here with little more than it takes (a bit for 4 KiB).
        machine.run("lvreduce -q -y -f -L 136M local/large_drbd_meta")
        machine.run("drbdadm --force create-md large </dev/null && drbdadm up large", timeout=600)
    lab.server.wait_for("they are connected", "grep -q ds:Inconsistent/Inconsistent /proc/drbd")
    lab.server.run("drbdadm new-current-uuid --clear-bitmap large/0", timeout=300)
    lab.both(lambda machine: machine.run("drbd-offsite up large"))
    product.await_up_to_date(lab, "large")
    metadata = "lvs --noheadings --nosuffix --units m -o lv_size local/large_drbd_meta"
    lab.server.run("drbd-offsite grow --no-wait large +256G", timeout=900)
    for machine in lab.machines:
        assert machine.run("cat /sys/block/drbd0/size").stdout == f"{4456 * 2**21}\n"
        assert float(machine.run(metadata).stdout) > 4456 / 32


# -- the peer's requests ---------------------------------------------------------------------------

SSH = (
    "ssh -F none -T -o BatchMode=yes -o UserKnownHostsFile=/etc/drbd-offsite/keys/backup/known_hosts "
    "-i /etc/drbd-offsite/keys/backup/ssh -p 7788 root@10.89.33.2"
)


STRANGE_REQUESTS = (
    "", "{", "[]", '{"version": 1}', '{"version": 1, "verb": "shell", "command": "id"}',
    '{"version": 1, "verb": "connect", "name": "../../etc"}',
    '{"version": 1, "verb": "report", "more": true}', "A" * 100_000,
)  # fmt: skip


def test_a_request_outside_the_vocabulary_changes_nothing(lab: Lab) -> None:
    lab.enter(REPLICATING)
    # What the watchers and their marks note each minute stands still meanwhile.
    lab.both(lambda machine: machine.run("systemctl stop drbd-offsite-watch"))
    look = "find /etc /var/lib/drbd-offsite -type f ! -name events.jsonl | sort | xargs sha256sum"
    before = lab.backup.run(look).stdout
    for request in STRANGE_REQUESTS:
        done = lab.server.run(SSH, check=False, input=request)
        assert '"error"' in done.stdout, request[:80]
        assert done.returncode == REFUSED, request[:80]
    assert lab.backup.run(look).stdout == before
    said = lab.backup.run("drbd-offsite events").stdout
    assert said.count("bad-request") == len(STRANGE_REQUESTS)


@pytest.mark.thorough
def test_the_peers_key_opens_nothing_else(lab: Lab) -> None:
    lab.enter(ENROLLED)
    for command in ("id", "sh -c id", "drbd-offsite status"):
        assert "uid=" not in lab.server.run(f"{SSH} {command}", check=False, input="{}").stdout
    lab.server.run(f"! {SSH} -W 127.0.0.1:22")
    # only on the tunnel's address, and never with root's own keys file
    assert lab.server.run("nc -z -w 2 192.0.2.2 7788", check=False).returncode != 0
    lab.backup.run("test ! -e /root/.ssh/id_ed25519 && ! grep -q peer-service /root/.ssh/authorized_keys")


# -- holds ---------------------------------------------------------------------------------------


def test_disconnect_holds_through_a_reboot_until_connect(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run("drbd-offsite disconnect test_a --reason 'line is expensive today'")
    lab.server.reboot()
    lab.server.wait_for("the server serves", lambda: product.resource(lab.server)["role"] == "Primary")
    said = refused(lab.server, "drbd-offsite status", 5, "Line is expensive today").stdout
    assert "nothing will connect it by itself" in said
    lab.server.run("drbd-offsite connect test_a")
    product.await_up_to_date(lab)
