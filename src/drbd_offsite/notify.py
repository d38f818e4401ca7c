"""What systemd is told of a service of Type=notify."""

import os
import socket


def notify(message: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd names."""
    target = os.environ.get("NOTIFY_SOCKET")
    if target:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.connect("\0" + target[1:] if target.startswith("@") else target)
            line.send(message.encode())
