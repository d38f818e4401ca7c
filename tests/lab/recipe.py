"""What is in the machines: data only. A change here gives the image another name."""

from __future__ import annotations

import os

SUITE = os.environ.get("DRBD_OFFSITE_LAB_SUITE", "bookworm")
"""Of Debian. trixie and forky boot as well; forky has OpenVPN 2.7."""
DISK_SIZE = "4G"

PACKAGES = (
    # a machine that boots and is reached
    "linux-image-amd64", "systemd-sysv", "udev", "dbus", "kmod", "procps", "openssh-server", "openssh-client",
    "iproute2", "iputils-ping", "iptables", "nftables", "netcat-openbsd", "less", "rsync",
    # what the product's packages depend on, so that they install with no network
    "apt-utils", "debconf", "debconf-utils", "bash-completion", "openssl",
    "drbd-utils", "lvm2", "thin-provisioning-tools", "e2fsprogs", "xfsprogs", "btrfs-progs",
    "openvpn", "wireguard-tools",
    # what alerts go through: a sendmail that delivers root's mail to /var/mail/root, and the many services
    "dma", "apprise",
    "python3", "python3-configobj", "python3-debian", "python3-jinja2", "python3-pyudev",
)  # fmt: skip

# Work that a test machine has no use for and that would steal time from a test in mid-flight.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-pstore.service",
)

# The build host's own, or sources that cannot be reached from inside.
REMOVED_FILES = (
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/mailname",
    "/etc/resolv.conf",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/*",
)

LAB_MACS = {"server": "52:54:00:10:00:01", "backup": "52:54:00:10:00:02"}
WAN_MACS = {"server": "52:54:00:20:00:01", "backup": "52:54:00:20:00:02"}
WAN_ADDRESSES = {"server": "192.0.2.1", "backup": "192.0.2.2"}


def _link(name: str, macs: dict[str, str]) -> str:
    return f"[Match]\nMACAddress={' '.join(macs.values())}\n\n[Link]\nName={name}\n"


def _network(match: str, address: str) -> str:
    # A cut in the Internet leaves a machine its address: so it does here when the link is down.
    # Nor may a boot with the link cut wait for it.
    return f"""\
[Match]
{match}

[Link]
RequiredForOnline=no-carrier

[Network]
Address={address}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
"""


FILES = {
    "/etc/fstab": "/dev/vda / ext4 defaults 0 0\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
    + "".join(f"{address} {name}\n" for name, address in WAN_ADDRESSES.items()),
    "/etc/ssh/sshd_config.d/lab.conf": ("PasswordAuthentication no\nUseDNS no\nMaxSessions 100\nMaxStartups 100\n"),
    # The journal must survive a power cut: every test reads it for forbidden words.
    "/etc/systemd/journald.conf.d/lab.conf": (
        "[Journal]\nStorage=persistent\nSyncIntervalSec=2s\nRateLimitIntervalSec=0\n"
    ),
    "/etc/systemd/network/10-lab.link": _link("lab0", LAB_MACS),
    "/etc/systemd/network/10-wan.link": _link("wan0", WAN_MACS),
    "/etc/systemd/network/20-lab.network": _network("Name=lab0", "10.0.2.15"),
    **{
        f"/etc/systemd/network/20-wan-{name}.network": _network(f"MACAddress={WAN_MACS[name]}", address)
        for name, address in WAN_ADDRESSES.items()
    },
}

# With their dependencies, all that stands between the kernel and the root disk. Newer kernels have crc32c built in.
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4")

PROBE_WORD = "LAB-INIT-REACHED"

# Who the machine is comes from the kernel command line (lab.name=, lab.machine_id=) and is
# written once, so that one image serves both machines and an admin's later edit stays.
INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do
    case $word in
        lab.name=*) name=${{word#*=}} ;;
        lab.machine_id=*) machine_id=${{word#*=}} ;;
        lab.probe) echo {PROBE_WORD} >/dev/console; poweroff -f ;;
    esac
done
for module in $(cat /modules/order); do insmod /modules/$module; done
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /root || exec reboot -f
[ -s /root/etc/hostname ] || echo "$name" >/root/etc/hostname
[ -s /root/etc/machine-id ] || echo "$machine_id" >/root/etc/machine-id
mount --move /dev /root/dev
umount /proc
exec switch_root /root /sbin/init
"""
