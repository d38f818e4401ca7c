"""Two machines get to know each other: ``invite`` on the server, ``join`` on the backup, ``enrol`` between them.

The invitation's own keys open the tunnel once. Through it the backup hands over the public halves of keys
that it made itself; the server lets only those in from then on.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .. import config, files, journal, keys, messages, peer
from ..errors import PeerUnreachable, Refused
from ..host import observe
from ..invitation import LIFETIME, Invitation, parse
from ..model import Flavour, Peer, Site, TunnelMode
from ..plan import guards
from ..render import SOCKET_FILE, tunnel_file
from ..run import run
from ..tools import iproute, ssh, systemd
from ..tools.openvpn import diagnose
from .apply import apply, save
from .half import locked

Tell = Callable[[str], None]

TUNNEL_SECONDS = 120
"""When the far end starts anew in the middle, keepalive's 30 s pass here, and hand-window's 30 s there, before the two
find each other."""
RESUMED_SECONDS = 20
"""How long a resumed join tries the invitation's keys, which the server may already have replaced."""

FULL_PACKET = 1420
"""Bytes; what WireGuard's interface carries at most, and OpenVPN's too."""


def invite(site: Site, peer_name: str = "", now: datetime | None = None) -> Invitation:
    """A new invitation; an earlier one for the same peer is good no longer. Raises Refused."""
    guards.enforce(guards.flavour(site, Flavour.SERVER, "invite"))
    with locked():
        invited = _invited(site, peer_name)
        now = now or datetime.now(UTC)
        keys.make_own(invited, hostname())
        token = secrets.token_hex(32)
        with tempfile.TemporaryDirectory(prefix="drbd-offsite-") as scratch:
            guest = _guest_keys(invited, Path(scratch))
            ssh_path = Path(scratch) / "ssh"
            keys.make_ssh_key(ssh_path, "drbd-offsite invitation")
            invitation = Invitation(
                token=token,
                expires=now.replace(microsecond=0) + LIFETIME,
                server_hostname=hostname(),
                link_speed=invited.link_speed,
                service_port=site.service_port,
                tunnel=invited.tunnel,
                server_fingerprint=keys.tunnel_identity(invited),
                tunnel_certificate=guest.certificate,
                tunnel_key=guest.key,
                server_ssh_key=keys.public_ssh_key(keys.directory(invited.name) / "ssh"),
                server_ssh_host_key=keys.public_ssh_key(keys.ROOT / keys.HOST_KEY),
                ssh_key=ssh_path.read_text(encoding="ascii"),
                drbd_secret=keys.make_drbd_secret(invited.name),
            )
            opened = keys.OpenInvitation(
                keys.token_hash(token), invitation.expires, guest.fingerprint, keys.public_ssh_key(ssh_path)
            )
        keys.keep_invitation(invited.name, opened)
        changed = apply(site)
        _start(invited, changed)
        journal.record("invited", "", f"An invitation was made for {invited.name}.", check=invitation.check_words)
        return invitation


def _invited(site: Site, name: str) -> Peer:
    if name and name not in site.peers:
        raise Refused(f"There is no peer {name} in the configuration.", f"There is: {', '.join(site.peers) or 'none'}.")
    if not name and len(site.peers) != 1:
        raise Refused("The configuration does not have exactly one peer.", f"Say which: {', '.join(site.peers)}.")
    invited = site.peers[name or next(iter(site.peers))]
    if invited.tunnel.mode is not TunnelMode.NONE and not invited.tunnel.reachable_as:
        raise Refused(
            f"The configuration does not say under which address the {invited.tunnel.dials.other} can be reached.",
            f"Set reachable_as in [peers] [[{invited.name}]] of {config.PATH}, or run "
            "dpkg-reconfigure drbd-offsite-server.",
        )
    return invited


@dataclass(frozen=True, slots=True)
class _Guest:
    """The tunnel keys that only one invitation uses."""

    key: str = ""
    certificate: str = ""
    fingerprint: str = ""


def _guest_keys(invited: Peer, scratch: Path) -> _Guest:
    """Made in ``scratch``, which is removed: the server keeps none of it but the fingerprint."""
    stem = scratch / "tunnel"
    key, certificate = stem.with_suffix(".key"), stem.with_suffix(".crt")
    match invited.tunnel.mode:
        case TunnelMode.OPENVPN:
            keys.make_certificate(stem, "invitation")
            return _Guest(
                key.read_text("ascii"), certificate.read_text("ascii"), keys.certificate_fingerprint(certificate)
            )
        case TunnelMode.WIREGUARD:
            keys.make_wireguard_key(key)
            return _Guest(key.read_text("ascii"), fingerprint=keys.wireguard_public(key))
        case TunnelMode.STATIC_KEY:
            return _Guest(keys.make_static_key(invited.name))
        case TunnelMode.NONE:
            return _Guest()


def join(text: str, tell: Tell) -> Peer:
    """Enrol this backup with the invitation ``text``; the same again finishes what was interrupted.

    Raises Refused for an invitation that is not good here, PeerUnreachable when the tunnel does not come up.
    """
    with locked():
        guards.enforce(guards.flavour(config.load(), Flavour.BACKUP, "join"))
        invitation = parse(text, datetime.now(UTC))
        used = keys.token_hash(invitation.token)
        guards.enforce(_unfit(invitation, used))
        name = invitation.server_hostname.partition(".")[0]
        earlier = journal.operations().get(f"join-{name}")
        resumed = earlier is not None and earlier.parameters.get("invitation") == used
        answered = resumed and earlier is not None and bool(earlier.parameters.get("answered"))
        operation = journal.begin("join", name, {"invitation": used, "answered": answered})
        site = _believe(invitation, name)
        joined = site.peers[name]
        tell(f"The keys for {name} are in place. Bringing up the tunnel (at most {TUNNEL_SECONDS} s) …")
        if not answered:
            _contact_as_guest(site, joined, invitation, resumed, tell)
            journal.begin("join", name, {"invitation": used, "answered": True})
        _forget_guest(name)
        _start(joined, apply(site))
        await_tunnel(site, joined, TUNNEL_SECONDS, tell)
        greeting = peer.ask(site, joined, messages.Hello(), messages.Greeting)
        journal.record("joined", "", f"Enrolled with {greeting.hostname}.", invitation=used)
        journal.end(operation)
        return joined


def _unfit(invitation: Invitation, used: str) -> Refused | None:
    if invitation.server_hostname == hostname():
        return Refused(
            f"The invitation was made on a machine named {hostname()}, as this one is.",
            "Carry it to the backup; if this is the backup, give it a name of its own (hostnamectl hostname NAME).",
        )
    if any(e["event"] == "joined" and e.get("invitation") == used for e in journal.events()):
        return Refused(
            "This invitation has been used on this machine already.",
            "Nothing is left to do: see drbd-offsite status. To enrol anew, make a new one on the server.",
        )
    return None


def _believe(invitation: Invitation, name: str) -> Site:
    """Write what the invitation says to the configuration and the key directory; twice is as good as once."""
    tunnel = invitation.tunnel
    values = {
        "hostname": invitation.server_hostname,
        "fingerprint": invitation.server_fingerprint,
        "link_speed": str(invitation.link_speed),
        "tunnel": tunnel.mode.value,
        "device": tunnel.device,
        "dials": tunnel.dials.value,
        "reachable_as": tunnel.reachable_as,
        "port": str(tunnel.port),
        "server_address": tunnel.server_address,
        "backup_address": tunnel.backup_address,
    }
    changes: dict[str, str | None] = {f"peers.{name}.{key}": value for key, value in values.items()}
    changes["site.service_port"] = str(invitation.service_port)
    site = save(changes)
    place = keys.directory(name)
    known_host = ssh.known_host(tunnel.server_address, invitation.service_port, invitation.server_ssh_host_key)
    files.write(place / "known_hosts", known_host, 0o600)
    files.write(place / "peer_ssh.pub", invitation.server_ssh_key + "\n", 0o600)
    files.write(place / "drbd.secret", invitation.drbd_secret + "\n", 0o600)
    if tunnel.mode is TunnelMode.STATIC_KEY:
        files.write(place / "static.key", invitation.tunnel_key, 0o600)
    keys.make_own(site.peers[name], hostname())
    return site


def _contact_as_guest(site: Site, joined: Peer, invitation: Invitation, resumed: bool, tell: Tell) -> None:
    """Hand over our public keys, with the invitation's keys opening the tunnel."""
    guest = keys.guest_directory(joined.name)
    guest.mkdir(mode=0o700, exist_ok=True)
    files.write(guest / "tunnel.crt", invitation.tunnel_certificate, 0o600)
    files.write(guest / "tunnel.key", invitation.tunnel_key, 0o600)
    files.write(guest / "ssh", invitation.ssh_key, 0o600)
    _start(joined, apply(site))
    try:
        await_tunnel(site, joined, RESUMED_SECONDS if resumed else TUNNEL_SECONDS, tell)
    except PeerUnreachable:
        if not resumed:
            raise
        # The earlier run's keys may have arrived and only the answer been lost: try with those.
        return
    request = messages.Enrol(
        token=invitation.token,
        hostname=hostname(),
        fingerprint=keys.tunnel_identity(joined),
        ssh_key=keys.public_ssh_key(keys.directory(joined.name) / "ssh"),
        ssh_host_key=keys.public_ssh_key(keys.ROOT / keys.HOST_KEY),
    )
    peer.ask(site, joined, request, messages.Done, key="invitation/ssh")


def _forget_guest(name: str) -> None:
    guest = keys.guest_directory(name)
    if guest.exists():
        for path in guest.iterdir():
            path.unlink()
        guest.rmdir()


def enrol(site: Site, name: str, request: messages.Enrol, now: datetime) -> messages.Done:
    """On the server: a backup shows its invitation and its own public keys. The same again is done already."""
    enrolling, opened = site.peers[name], keys.open_invitation(name)
    if opened is None or not secrets.compare_digest(keys.token_hash(request.token), opened.token_hash):
        raise Refused(
            "This invitation is not the newest one, or has been used.", "Make a new one: drbd-offsite invite."
        )
    known = keys.public_ssh_key(keys.directory(name) / "peer_ssh")
    if opened.used and known != request.ssh_key:
        raise Refused("This invitation has been used by another machine.", "Make a new one: drbd-offsite invite.")
    if now >= opened.expires and not opened.used:
        raise Refused("This invitation has expired.", "Make a new one: drbd-offsite invite.")
    if request.hostname == hostname():
        raise Refused(
            f"Both machines are named {request.hostname}.", "Give the backup another name (hostnamectl hostname NAME)."
        )
    place = keys.directory(name)
    known_host = ssh.known_host(site.address_there(enrolling), site.service_port, request.ssh_host_key)
    with locked():
        files.write(place / "known_hosts", known_host, 0o600)
        files.write(place / "peer_ssh.pub", request.ssh_key + "\n", 0o600)
        keys.keep_invitation(name, replace(opened, used=True))
        site = save({f"peers.{name}.hostname": request.hostname, f"peers.{name}.fingerprint": request.fingerprint})
        apply(site)
    journal.record("enrolled", "", f"{request.hostname} was enrolled as {name}.")
    unit = systemd.tunnel_unit(enrolling)
    if unit:
        # Only after the answer has gone through the very tunnel that this restarts.
        run(systemd.restart_soon(unit))
    return messages.Done()


def hello(site: Site, name: str) -> messages.Greeting:
    """A peer's first word with its own key ends its enrolment."""
    opened = keys.open_invitation(name)
    if opened is not None and opened.used:
        with locked():
            keys.close_invitation(name)
            apply(config.load())  # which may have changed since the request came
    version = observe(site).drbd_version  # takes a moment, and the time is to be that of the answer
    return messages.Greeting(hostname(), site.flavour, version, journal.now())


def await_tunnel(site: Site, to: Peer, seconds: int, tell: Tell) -> None:
    """Wait until the far end of the tunnel answers. Raises PeerUnreachable with the likeliest cause."""
    address, since = site.address_there(to), int(time.time()) - 1
    until = time.monotonic() + seconds
    while run(iproute.ping(address, seconds=1), accept=None).returncode != 0:
        if time.monotonic() >= until:
            raise _unreachable(to, address, since)
        time.sleep(0.5)
    tell(f"The tunnel is up: {address} answers.")
    full = iproute.ping(address, seconds=5, packet_bytes=FULL_PACKET)
    if run(full, accept=None).returncode != 0:
        tell(
            f"Warning: packets of {FULL_PACKET} bytes do not get through, so replication will hang. Something on the "
            "way drops large packets; set a smaller MTU on this machine's network interface."
        )


def _unreachable(to: Peer, address: str, since: int) -> PeerUnreachable:
    unit = systemd.tunnel_unit(to)
    cause = diagnose(run(systemd.log_since(unit, since), accept=None).stdout if unit else "")
    log = f" The tunnel's log: journalctl -u {unit}" if unit else ""
    where = f" ({to.tunnel.reachable_as}, UDP port {to.tunnel.port})" if to.tunnel.reachable_as else ""
    return PeerUnreachable(
        f"The tunnel to {to.name}{where} did not come up: {address} does not answer. Likely {cause.what}.",
        f"{cause.remedy} Then run the same command again.{log}",
    )


def _start(to: Peer, changed: list[str]) -> None:
    """Tunnel and peer service run, at once and after every boot, with what was just rendered."""
    run(systemd.systemctl("enable", systemd.PEER_SOCKET, systemd.TUNNEL_STARTER))
    for unit, path in ((systemd.tunnel_unit(to), tunnel_file(to)), (systemd.PEER_SOCKET, SOCKET_FILE)):
        if unit is not None:
            run(systemd.systemctl("restart" if path in changed else "start", unit), timeout=120.0)


def hostname() -> str:
    """``uname -n``: DRBD finds its own section of a resource by it."""
    return os.uname().nodename
