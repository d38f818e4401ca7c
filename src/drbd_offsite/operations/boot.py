"""What a boot needs beyond the circle."""

from collections.abc import Iterable

from ..model import Flavour, Site
from ..run import run
from ..tools import systemd


def start_tunnels(site: Site, names: Iterable[str]) -> None:
    """On a server that asks before it serves: have the tunnels come up while the disks are attached.

    They start by themselves only after the resources (drbd-offsite-tunnel.service). Not waited for, and without
    the tunnel's own order: each resource is ordered after it, and one whose start has not begun yet would wait for
    the network with it.
    """
    if site.flavour is not Flavour.SERVER or not site.boot_wait:
        return
    peers = {site.resources[name].peer for name in names}
    units = [systemd.tunnel_unit(site.peers[peer]) for peer in sorted(peers) if site.peers[peer].enrolled]
    if wanted := [unit for unit in units if unit]:
        run(systemd.systemctl("start", "--no-block", "--job-mode=ignore-dependencies", *wanted), accept=None)
