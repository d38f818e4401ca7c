"""openvpn(8) and the openssl(1) calls that make its certificates."""

import re
from dataclasses import dataclass

Argv = tuple[str, ...]

DEFAULT_PORT = "1194"

CERTIFICATE_DAYS = 7300
"""Peers know each other by fingerprint; an expiry would only be a date on which replication stops."""


def make_certificate(key: str, certificate: str, name: str) -> Argv:
    """A self-signed certificate and its key, as files. peer-fingerprint needs no CA (openvpn(8))."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1")
    return (
        "openssl", "req", "-x509", *curve, "-nodes", "-sha256", "-days", str(CERTIFICATE_DAYS),
        "-subj", f"/CN={name}", "-keyout", key, "-out", certificate,
    )  # fmt: skip


def fingerprint(certificate: str) -> Argv:
    return ("openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256")


def parse_fingerprint(text: str) -> str:
    """``sha256 Fingerprint=AA:BB:…``. Raises ValueError for anything else."""
    match = re.search(r"=((?:[0-9A-F]{2}:){31}[0-9A-F]{2})\s*$", text)
    if match is None:
        raise ValueError("openssl printed no SHA-256 fingerprint")
    return match[1]


def make_static_key(path: str) -> Argv:
    return ("openvpn", "--genkey", "secret", path)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a configuration that was made by hand says of its tunnel; empty for what it does not say."""

    remote: str
    """Whom it dials."""
    port: str
    near_end: str
    far_end: str


def parse_setup(text: str) -> Setup:
    """The directives that matter here (openvpn(8)); of one that is repeated, the last."""
    lines = (re.sub(r"(?:^|\s)[#;].*", "", line).split() for line in text.splitlines())
    said = {words[0]: words[1:] for words in lines if words}

    def value(directive: str, number: int = 0) -> str:
        return "".join(said.get(directive, ())[number : number + 1])

    return Setup(
        remote=value("remote"),
        port=value("remote", 1) or value("port") or DEFAULT_PORT,
        near_end=value("ifconfig"),
        far_end=value("ifconfig", 1),
    )


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a tunnel does not come up, and what to do."""

    what: str
    remedy: str


_CAUSES = (
    (
        r"certificate is not yet valid|certificate has expired",
        Cause(
            "the clocks of the two machines disagree: a certificate is not valid at this machine's time",
            "Compare 'date' on both machines and set the wrong clock.",
        ),
    ),
    (
        r"VERIFY ERROR|certificate verify failed|SSL alert|tlsv1 alert|TLS_ERROR|Authenticate/Decrypt packet error",
        Cause(
            "a key was refused: the two machines do not have the keys of the same invitation",
            "Only the newest invitation is good, and once. On the server make one: drbd-offsite invite.",
        ),
    ),
    (
        # It has shown its own key and then falls silent: with TLS 1.3 the side that is refused hears nothing more.
        r"VERIFY OK(?![\s\S]*Peer Connection Initiated)",
        Cause(
            "this machine's key was refused there: the two machines do not have the keys of the same invitation",
            "Only the newest invitation is good, and once. On the server make one: drbd-offsite invite.",
        ),
    ),
    (
        r"Could not determine IPv4/IPv6 protocol|RESOLVE: Cannot resolve host",
        Cause(
            "the name of the other machine cannot be resolved",
            "Check reachable_as in drbd-offsite.conf and this machine's DNS.",
        ),
    ),
    (
        r"Network is unreachable|No route to host|EHOSTUNREACH",
        Cause(
            "there is no route to the other machine's address",
            "Check reachable_as in drbd-offsite.conf and this machine's network.",
        ),
    ),
    (
        r"Connection refused|ECONNREFUSED",
        Cause(
            "the other machine answers, but nothing listens on that port; perhaps both sides dial",
            "Check the port on both sides, that 'dials' is the same on both, and that the tunnel's unit runs there.",
        ),
    ),
    (
        r"Incoming packet rejected",
        Cause(
            "packets come from an address that is not the configured one; perhaps both sides dial",
            "Only one side may dial: 'dials' in drbd-offsite.conf has to be the same on both.",
        ),
    ),
    (
        r"Address already in use",
        Cause(
            "the port is taken by another program on this machine",
            "See which one with 'ss -lunp', or choose another port on both sides.",
        ),
    ),
    (
        r"TLS key negotiation failed to occur|Inactivity timeout|TLS handshake failed",
        Cause(
            "nothing answers: a wrong address, a closed port or a firewall on the way",
            "Check reachable_as and port, and that the firewall there lets UDP on that port through.",
        ),
    ),
)
"""OpenVPN's own words in 2.6 and 2.7, the sure ones before the ones that only say that nothing came."""

SILENCE = Cause(
    "no packet of the other machine has arrived: a wrong address, a closed port, or it is not running yet",
    "Check reachable_as and port on both sides, and that the firewall lets UDP on that port through.",
)


def diagnose(log: str) -> Cause:
    """The likeliest cause of a tunnel that does not come up, from OpenVPN's log since its start."""
    for pattern, cause in _CAUSES:
        if re.search(pattern, log):
            return cause
    return SILENCE
