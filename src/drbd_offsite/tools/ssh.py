"""ssh(1) through the tunnel, and ssh-keygen(1)."""

Argv = tuple[str, ...]


def make_key(path: str, comment: str) -> Argv:
    return ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)


def request(address: str, port: int, key: str, known_hosts: str, connect_seconds: int) -> Argv:
    """A connection that runs the peer's forced command and nothing of ours or of the admin's configuration."""
    options = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        f"ConnectTimeout={connect_seconds}",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=6",
        "ControlPath=none",
        "LogLevel=ERROR",
    )
    flags = tuple(word for option in options for word in ("-o", option))
    return ("ssh", "-F", "none", "-T", "-i", key, *flags, "-p", str(port), f"root@{address}")


def known_host(address: str, port: int, key: str) -> str:
    """A known_hosts line (sshd(8)); a port other than 22 is part of the name."""
    return f"[{address}]:{port} {key}\n"


def authorized(key: str, command: str, address: str) -> str:
    """An authorized_keys line (sshd(8)) for one command, from one address, and nothing else."""
    return f'restrict,from="{address}",command="{command}" {key}\n'
