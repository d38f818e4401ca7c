"""Catch what the kernel tells of addresses; as root:

    unshare --net /usr/bin/python3 tests/data/netlink/capture.py

Each file has the datagrams of one command, in hexadecimal, a line each.
"""

import socket
import subprocess
from pathlib import Path

IPV4_ADDRESSES = 0x10
COMMANDS = {
    "tunnel-is-made": "ip tuntap add dev tun0 mode tun",
    "tunnel-gets-its-address": "ip address add 10.89.33.1 peer 10.89.33.2 dev tun0",
    "network-gets-its-address": "ip address add 192.0.2.7/24 broadcast + dev tun0 label tun0:1",
    "address-goes": "ip address del 10.89.33.1 peer 10.89.33.2 dev tun0",
    "tunnel-vanishes": "ip link delete tun0",
}


def main() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as news:
        news.bind((0, IPV4_ADDRESSES))
        for name, command in COMMANDS.items():
            subprocess.run(command.split(), check=True)
            lines = []
            while True:
                try:
                    lines.append(news.recv(65536).hex())
                except BlockingIOError:
                    break
            Path(__file__).with_name(f"{name}.hex").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
