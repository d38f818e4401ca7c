"""The key directory: making keys, and reading the public halves that rendering needs."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from . import files
from .model import Peer, Site, TunnelMode
from .render import KEYS, Credentials
from .run import run
from .tools import openvpn, ssh, wireguard

ROOT = Path(KEYS)
HOST_KEY = "ssh_host_ed25519_key"


def directory(peer: str) -> Path:
    """Where a peer's keys are; made 0700 on the way."""
    path = ROOT / peer
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    ROOT.chmod(0o700)
    return path


def make_own(peer: Peer, hostname: str) -> None:
    """Make the keys that this machine shows to a peer, those that are not there yet."""
    place = directory(peer.name)
    make_ssh_key(place / "ssh", f"drbd-offsite {hostname}")
    make_ssh_key(ROOT / HOST_KEY, f"drbd-offsite host {hostname}")
    match peer.tunnel.mode:
        case TunnelMode.OPENVPN:
            make_certificate(place / "tunnel", hostname)
        case TunnelMode.WIREGUARD:
            make_wireguard_key(place / "wireguard.key")
        case TunnelMode.STATIC_KEY | TunnelMode.NONE:
            pass


def make_ssh_key(path: Path, comment: str) -> None:
    if not path.exists():
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        run(ssh.make_key(str(fresh), comment))
        # The private half last: where it is, its public half is.
        fresh.with_name(f"{fresh.name}.pub").replace(path.with_name(f"{path.name}.pub"))
        fresh.replace(path)


def make_certificate(stem: Path, name: str) -> None:
    """``stem``.key and ``stem``.crt."""
    key, certificate = stem.with_suffix(".key"), stem.with_suffix(".crt")
    if not key.exists():
        fresh = key.with_suffix(".new")
        run(openvpn.make_certificate(str(fresh), str(certificate), name))
        fresh.chmod(0o600)
        fresh.replace(key)


def make_wireguard_key(path: Path) -> None:
    if not path.exists():
        files.write(path, run(wireguard.MAKE_KEY).stdout, 0o600)


def make_static_key(peer: str) -> str:
    """The key that both sides share in the how-to's mode, made where it is not there yet."""
    path = directory(peer) / "static.key"
    if not path.exists():
        fresh = path.with_suffix(".new")
        run(openvpn.make_static_key(str(fresh)))
        fresh.chmod(0o600)
        fresh.replace(path)
    return path.read_text(encoding="ascii")


def make_drbd_secret(peer: str) -> str:
    path = directory(peer) / "drbd.secret"
    if not path.exists():
        files.write(path, secrets.token_hex(24) + "\n", 0o600)
    return path.read_text(encoding="ascii").strip()


def public_ssh_key(path: Path) -> str:
    """Type and key of a ``.pub`` file, without its comment; empty where it is not there."""
    return " ".join((files.read(path.with_name(f"{path.name}.pub")) or "").split()[:2])


def tunnel_identity(peer: Peer) -> str:
    """What this machine shows at its end: a certificate's fingerprint, a WireGuard public key, or nothing."""
    place = directory(peer.name)
    match peer.tunnel.mode:
        case TunnelMode.OPENVPN:
            return certificate_fingerprint(place / "tunnel.crt")
        case TunnelMode.WIREGUARD:
            return wireguard_public(place / "wireguard.key")
        case TunnelMode.STATIC_KEY | TunnelMode.NONE:
            return ""


def certificate_fingerprint(path: Path) -> str:
    return openvpn.parse_fingerprint(run(openvpn.fingerprint(str(path))).stdout)


def wireguard_public(path: Path) -> str:
    return run(wireguard.PUBLIC_KEY, stdin=path.read_text(encoding="ascii")).stdout.strip()


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """What the server keeps of an invitation: nothing that could be used in its place."""

    token_hash: str
    expires: datetime
    fingerprint: str
    ssh_key: str
    used: bool = False
    """A backup has shown it; nobody else is let in with it."""


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _invitation_file(peer: str) -> Path:
    return directory(peer) / "invitation.json"


def open_invitation(peer: str) -> OpenInvitation | None:
    """The invitation that has not been ended by a first contact; it may have expired."""
    text = files.read(_invitation_file(peer))
    if text is None:
        return None
    entry = json.loads(text)
    return OpenInvitation(
        entry["token_hash"],
        datetime.fromisoformat(entry["expires"]),
        entry["fingerprint"],
        entry["ssh_key"],
        entry["used"],
    )


def keep_invitation(peer: str, invitation: OpenInvitation) -> None:
    entry = {
        "token_hash": invitation.token_hash,
        "expires": invitation.expires.isoformat(),
        "fingerprint": invitation.fingerprint,
        "ssh_key": invitation.ssh_key,
        "used": invitation.used,
    }
    files.write(_invitation_file(peer), json.dumps(entry, indent=1) + "\n", 0o600)


def close_invitation(peer: str) -> None:
    files.remove(_invitation_file(peer))


def guest_directory(peer: str) -> Path:
    """On the backup: the invitation's own keys, there until its own have taken their place."""
    return directory(peer) / "invitation"


def credentials(site: Site) -> Mapping[str, Credentials]:
    """What `render` needs, by peer."""
    return {name: _credentials(peer) for name, peer in site.peers.items()}


def _credentials(peer: Peer) -> Credentials:
    place = ROOT / peer.name
    invitation = open_invitation(peer.name) if place.exists() else None
    guest = invitation.fingerprint if invitation and not invitation.used else ""
    return Credentials(
        drbd_secret=(files.read(place / "drbd.secret") or "").strip(),
        fingerprints=tuple(f for f in (peer.fingerprint, guest) if f),
        invited=(place / "invitation").exists(),
        ssh_key=(files.read(place / "peer_ssh.pub") or "").strip(),
        enrol_key=invitation.ssh_key if invitation else "",
    )
