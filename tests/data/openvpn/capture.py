"""Catch what OpenVPN logs when a tunnel does not come up; as root: capture.py DIRECTORY (four minutes).

Two network namespaces of this machine stand for the server and the backup, and OpenVPN runs with our own
rendered configuration. Dates and process ids of the host stay out of the logs ("suppress-timestamps").
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))

from drbd_offsite.model import Flavour, Peer, Site, Tunnel, TunnelMode
from drbd_offsite.render import KEYS, Credentials, render
from drbd_offsite.tools import openvpn

ADDRESS = {Flavour.SERVER: "192.0.2.1", Flavour.BACKUP: "192.0.2.2"}
TUNNEL = Tunnel(TunnelMode.OPENVPN, "tun0", Flavour.BACKUP, ADDRESS[Flavour.SERVER], 1194, "10.89.33.1", "10.89.33.2")
TOO_OLD = ("20200101000000Z", "20200201000000Z")
TOO_NEW = ("20980101000000Z", "20990101000000Z")


def tool(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@contextmanager
def namespaces() -> Iterator[None]:
    for flavour in Flavour:
        tool("ip", "netns", "add", f"capture-{flavour}")
    try:
        tool(
            "ip",
            "link",
            "add",
            "wan",
            "netns",
            "capture-server",
            "type",
            "veth",
            "peer",
            "wan",
            "netns",
            "capture-backup",
        )
        for flavour, address in ADDRESS.items():
            inside = ("ip", "-n", f"capture-{flavour}")
            tool(*inside, "address", "add", f"{address}/24", "dev", "wan")
            tool(*inside, "link", "set", "wan", "up")
            tool(*inside, "link", "set", "lo", "up")
        yield
    finally:
        for flavour in Flavour:
            tool("ip", "netns", "delete", f"capture-{flavour}")


@contextmanager
def listening(port: int) -> Iterator[None]:
    """A program on the server that holds a UDP port and says nothing."""
    code = f"import signal, socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', {port})); signal.pause()"
    process = subprocess.Popen(["/usr/sbin/ip", "netns", "exec", "capture-server", sys.executable, "-c", code])
    time.sleep(1)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def certificate(home: Path, name: str, dates: tuple[str, str] | None = None) -> str:
    """Make NAME.key and NAME.crt, valid between two dates if given; returns the fingerprint."""
    key, crt = home / f"{name}.key", home / f"{name}.crt"
    tool(*openvpn.make_certificate(str(key), str(crt), name))
    if dates:
        (home / "index").write_text("")
        (home / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=c\n[c]\ndatabase={home}/index\nnew_certs_dir={home}\ndefault_md=sha256\n"
            "policy=p\nrand_serial=yes\n[p]\ncommonName=supplied\n"
        )
        tool("openssl", "req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", f"{home}/csr")
        tool(
            "openssl", "ca", "-batch", "-config", f"{home}/ca.cnf", "-selfsign", "-notext", "-keyfile", str(key),
            "-startdate", dates[0], "-enddate", dates[1], "-in", f"{home}/csr", "-out", str(crt),
        )  # fmt: skip
    return openvpn.parse_fingerprint(tool(*openvpn.fingerprint(str(crt))))


def configuration(home: Path, flavour: Flavour, tunnel: Tunnel, believed: str, identity: str) -> str:
    """Our own rendered file, with this test's keys instead of the machine's."""
    peer = Peer(flavour.other, flavour.other, "", 100, tunnel)
    site = Site(flavour, "local", "drbd_meta", False, "root", 7788, {peer.name: peer}, {})
    secret = Credentials(drbd_secret="0" * 48, fingerprints=(believed,) if believed else ())
    text = render(site, {peer.name: secret}, flavour)[0].text
    text = text.replace(f"{KEYS}/{peer.name}/tunnel.", f"{home}/{identity}.")
    return text.replace(f"{KEYS}/{peer.name}/", f"{home}/")


def run(home: Path, name: str, texts: dict[Flavour, str], seconds: float, target: Path) -> None:
    """Run both ends and keep what each of them logged as NAME-server.log and NAME-backup.log."""
    with ExitStack() as running:
        for flavour, text in texts.items():
            config = home / f"{flavour}.conf"
            config.write_text(text)
            inside = ("ip", "netns", "exec", f"capture-{flavour}")
            with (target / f"{name}-{flavour}.log").open("w") as log:
                process = subprocess.Popen(
                    [*inside, "openvpn", "--suppress-timestamps", "--config", str(config)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            running.callback(process.wait)
            running.callback(process.terminate)
            time.sleep(1)  # the server is first and listens before the backup calls
        time.sleep(seconds)
    for flavour in texts:
        path = target / f"{name}-{flavour}.log"
        path.write_text(path.read_text().replace(str(home), "KEYS"))


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    server, backup = Flavour.SERVER, Flavour.BACKUP
    with namespaces(), tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        prints = {name: certificate(home, name) for name in ("server", "backup", "stranger")}
        prints["old"] = certificate(home, "old", TOO_OLD)
        prints["new"] = certificate(home, "new", TOO_NEW)

        def pair(tunnels: dict[Flavour, Tunnel] | None = None, **identities: str) -> dict[Flavour, str]:
            """Both configurations; ``backup="old"`` lets the backup show another certificate than its own."""
            shown = {f: identities.get(f, str(f)) for f in Flavour}
            believed = {f: identities.get(f"{f}_believed", shown[f]) for f in Flavour}
            return {
                f: configuration(home, f, (tunnels or {}).get(f, TUNNEL), prints[believed[f.other]], shown[f])
                for f in Flavour
            }

        change = dataclasses.replace
        run(home, "up", pair(), 6, target)
        run(home, "wrong-port", pair({backup: change(TUNNEL, port=1195)}), 6, target)
        run(home, "wrong-address", pair({backup: change(TUNNEL, reachable_as="192.0.2.77")}), 6, target)
        run(home, "no-route", pair({backup: change(TUNNEL, reachable_as="198.51.100.1")}), 6, target)
        run(home, "no-name", pair({backup: change(TUNNEL, reachable_as="server.invalid")}), 6, target)
        run(home, "both-dial", pair({server: change(TUNNEL, dials=server, reachable_as=ADDRESS[backup])}), 8, target)
        run(home, "wrong-fingerprint-of-backup", pair(backup="stranger", backup_believed="backup"), 8, target)
        run(home, "wrong-fingerprint-of-server", pair(server="stranger", server_believed="server"), 8, target)
        run(home, "certificate-expired", pair(backup="old"), 8, target)
        run(home, "certificate-not-yet-valid", pair(backup="new"), 8, target)
        # Somebody who listens on the port and never answers looks like a firewall.
        with listening(1194):
            run(home, "port-taken", {server: pair()[server]}, 3, target)
        with listening(1196):
            silent = pair({backup: change(TUNNEL, port=1196)})[backup]
            run(home, "no-answer", {backup: silent}, 40, target)
        static = change(TUNNEL, mode=TunnelMode.STATIC_KEY)
        for name in ("static", "other"):
            tool(*openvpn.make_static_key(str(home / f"{name}.key")))
        texts = {f: configuration(home, f, static, "", "none") for f in Flavour}
        run(home, "static-up", texts, 6, target)
        texts[backup] = texts[backup].replace("/static.key", "/other.key")
        run(home, "static-wrong-key", texts, 10, target)
        # These wait for OpenVPN's own minute.
        run(
            home,
            "wrong-fingerprint-of-backup-after-a-minute",
            pair(backup="stranger", backup_believed="backup"),
            70,
            target,
        )
        run(home, "wrong-address-after-a-minute", pair({backup: change(TUNNEL, reachable_as="192.0.2.77")}), 70, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
