"""systemctl(1) and journalctl(1)."""

from ..model import Peer, TunnelMode

Argv = tuple[str, ...]

PEER_SOCKET = "drbd-offsite-peer.socket"
TUNNEL_STARTER = "drbd-offsite-tunnel.service"
"""Starts the tunnels after the resources; they are not enabled themselves."""
DAEMON_RELOAD: Argv = ("systemctl", "daemon-reload")


def turn_unit(turn: str, resource: str) -> str:
    """The unit that takes one step of a handover for the peer."""
    return f"drbd-offsite-turn@{turn}:{resource}.service"


def files_unit(resource: str) -> str:
    """The unit that shares a look at a copy with the peer."""
    return f"drbd-offsite-files@{resource}.service"


def resource_unit(resource: str) -> str:
    """The unit of one resource. Its instance is not escaped: the unit uses %i and never %I."""
    return f"drbd-offsite@{resource}.service"


def tunnel_unit(peer: Peer) -> str | None:
    """Debian's own unit for the tunnel to a peer; None where there is no tunnel of ours."""
    match peer.tunnel.mode:
        case TunnelMode.OPENVPN | TunnelMode.STATIC_KEY:
            return f"openvpn-server@drbd-offsite-{peer.name}.service"
        case TunnelMode.WIREGUARD:
            return f"wg-quick@{peer.tunnel.device}.service"
        case TunnelMode.NONE:
            return None


def systemctl(command: str, *units: str) -> Argv:
    return ("systemctl", "--no-ask-password", command, *units)


def restart_soon(unit: str) -> Argv:
    """Restart a unit in a second, from outside whatever asks for it."""
    timer = ("--on-active=1", "--timer-property=AccuracySec=100ms", "--collect", "--quiet")
    return ("systemd-run", *timer, "systemctl", "restart", unit)


def log_since(unit: str, since: int) -> Argv:
    """What a unit logged since an instant in seconds of the epoch, messages only."""
    return ("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", f"--since=@{since}")


FLUSH_LOG: Argv = ("journalctl", "--sync")
"""What the kernel has logged until now can be read when this ends; journald reads it in its own time."""


def kernel_log(cursor: str) -> Argv:
    """What the kernel logged after a cursor, messages only, and a new cursor; without one, of this boot.

    Not ``--dmesg``: it would leave out what was logged before a reboot.
    """
    since = f"--after-cursor={cursor}" if cursor else "--boot"
    return ("journalctl", "--quiet", "--no-pager", "--output=cat", "--show-cursor", since, "_TRANSPORT=kernel")


LOG_END: Argv = ("journalctl", "--quiet", "--no-pager", "--lines=0", "--show-cursor", "_TRANSPORT=kernel")
"""A cursor alone."""


def cursor(text: str) -> str:
    """The cursor at the end of what journalctl printed; empty where there is none, for want of messages."""
    *_, last = text.splitlines() or [""]
    return last.removeprefix("-- cursor: ") if last.startswith("-- cursor: ") else ""


def device_unit(path: str) -> str:
    """The unit that systemd makes for a device's path or link (systemd.unit(5), "string escaping")."""
    name = "".join(
        "-" if c == "/" else c if c.isascii() and (c.isalnum() or c in ":_.") else _hexadecimal(c)
        for c in path.strip("/")
    )
    return f"{name}.device"


def _hexadecimal(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
