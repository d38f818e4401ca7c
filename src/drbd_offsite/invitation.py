"""The enrolment file: one deb822 paragraph with all that the backup needs, good once and for a day."""

import base64
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

from debian.deb822 import Deb822

from .errors import Refused
from .messages import FINGERPRINT, HOSTNAME, SSH_PUBLIC_KEY, TOKEN
from .model import Flavour, Tunnel, TunnelMode

FORMAT = "drbd-offsite-invitation 1"
LIFETIME = timedelta(days=1)

_SECRET = re.compile(r"[!#-\[\]-~]{1,64}\Z")
_AGAIN = "Make a new one on the server (drbd-offsite invite) and carry it over whole."


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the server tells a backup that it has never met. All but the public keys is secret."""

    token: str
    """64 hexadecimal digits; the server knows only its hash."""
    expires: datetime
    server_hostname: str
    link_speed: int
    service_port: int
    tunnel: Tunnel
    server_fingerprint: str
    """Of the server's certificate, or its WireGuard public key; empty in the other modes."""
    tunnel_certificate: str
    """PEM of the certificate that only this invitation uses; empty in the other modes."""
    tunnel_key: str
    """Private: PEM, WireGuard key or static key, by the tunnel's mode."""
    server_ssh_key: str
    server_ssh_host_key: str
    ssh_key: str
    """Private key that may ask for the enrolment and for nothing else."""
    drbd_secret: str

    @property
    def check_words(self) -> str:
        """What both machines show, so that two people on the telephone can compare."""
        digest = hashlib.sha256(compose(self).encode()).hexdigest().upper()
        return "-".join(digest[i : i + 4] for i in range(0, 16, 4))


_PLAIN = (
    "token", "server_hostname", "server_fingerprint", "tunnel_certificate", "tunnel_key",
    "server_ssh_key", "server_ssh_host_key", "ssh_key", "drbd_secret",
)  # fmt: skip


def compose(invitation: Invitation) -> str:
    """The paragraph as text, its checksum last."""
    values = {"format": FORMAT, "expires": invitation.expires.astimezone(UTC).isoformat(timespec="seconds")}
    values |= {name: getattr(invitation, name) for name in _PLAIN}
    values |= {"link_speed": str(invitation.link_speed), "service_port": str(invitation.service_port)}
    values |= {f"tunnel_{f.name}": str(getattr(invitation.tunnel, f.name)) for f in fields(Tunnel)}
    paragraph = Deb822({_field(name): _folded(value) for name, value in values.items()})
    paragraph["Checksum"] = _checksum(paragraph)
    return str(paragraph.dump())


def one_line(text: str) -> str:
    """The same for a single-line input field."""
    return base64.b64encode(text.encode()).decode()


def parse(text: str, now: datetime) -> Invitation:
    """The invitation in ``text`` (either form). Raises Refused for one that is foreign, torn, altered or too old."""
    if "\n" not in text.strip():
        # What is no base64 is a paragraph of one line, or nothing of ours: said below.
        with suppress(ValueError):
            text = base64.b64decode("".join(text.split()), validate=True).decode()
    paragraph = Deb822(text.splitlines())
    if paragraph.get("Format") != FORMAT:
        raise Refused("This is no invitation of drbd-offsite (or one of another version).", _AGAIN)
    if "Checksum" not in paragraph:
        raise Refused("The invitation is cut off: its end is missing.", _AGAIN)
    if paragraph["Checksum"] != _checksum(paragraph):
        raise Refused("The invitation was altered: its checksum does not fit its content.", _AGAIN)
    try:
        invitation = _invitation({name: _unfolded(str(value)) for name, value in paragraph.items()})
    except (KeyError, ValueError) as error:
        raise Refused(f"The invitation cannot be understood: {error}.", _AGAIN) from error
    if compose(invitation).split() != text.split():
        raise Refused("The invitation was altered: there is more in the file than belongs there.", _AGAIN)
    if now >= invitation.expires:
        raise Refused(f"The invitation has expired ({invitation.expires:%Y-%m-%d %H:%M} UTC).", _AGAIN)
    return invitation


def _invitation(values: dict[str, str]) -> Invitation:
    def value(name: str) -> str:
        return values[_field(name)]

    # These end up in names and lines of files, where a slash, a quote or a line break would do more than was meant.
    for name, pattern in (
        ("token", TOKEN),
        ("server_hostname", HOSTNAME),
        ("server_fingerprint", FINGERPRINT),
        ("drbd_secret", _SECRET),
        ("server_ssh_key", SSH_PUBLIC_KEY),
        ("server_ssh_host_key", SSH_PUBLIC_KEY),
    ):
        if not pattern.match(value(name)):
            raise ValueError(f"{_field(name)} is not well formed")
    expires = datetime.fromisoformat(value("expires"))
    if expires.tzinfo is None:
        raise ValueError("Expires does not say in which time zone")
    return Invitation(
        expires=expires,
        link_speed=int(value("link_speed")),
        service_port=int(value("service_port")),
        tunnel=Tunnel(
            mode=TunnelMode(value("tunnel_mode")),
            device=value("tunnel_device"),
            dials=Flavour(value("tunnel_dials")),
            reachable_as=value("tunnel_reachable_as"),
            port=int(value("tunnel_port")),
            server_address=value("tunnel_server_address"),
            backup_address=value("tunnel_backup_address"),
        ),
        **{name: value(name) for name in _PLAIN},
    )


def _field(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("_"))


def _folded(value: str) -> str:
    lines = value.rstrip("\n").split("\n")
    return lines[0] if len(lines) == 1 else "\n".join(["", *(f" {line}" for line in lines)])


def _unfolded(value: str) -> str:
    if "\n" not in value:
        return value
    return "\n".join(line.removeprefix(" ") for line in value.split("\n") if line) + "\n"


def _checksum(paragraph: Deb822) -> str:
    content = "".join(f"{name}={value}\0" for name, value in paragraph.items() if name != "Checksum")
    return hashlib.sha256(content.encode()).hexdigest()
