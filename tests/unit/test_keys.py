import shutil
import stat
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drbd_offsite import keys
from drbd_offsite.model import TunnelMode
from drbd_offsite.tools import openvpn, ssh, wireguard

from . import make
from .conftest import Answer, Programs

PEER = make.peer()
WG_PUBLIC = "P" * 43 + "="


def other(mode: TunnelMode) -> object:
    return make.peer(tunnel=replace(make.TUNNEL, mode=mode))


def maker(argv: tuple[str, ...], _: str) -> Answer | None:
    """ssh-keygen, openssl, openvpn and wg as far as they make keys, into the files that they are told."""
    if argv[0] == "ssh-keygen":
        path = Path(argv[argv.index("-f") + 1])
        assert not path.exists(), "ssh-keygen would ask"
        path.write_text("private\n")
        Path(f"{path}.pub").write_text(f"{make.SSH_KEY} {argv[argv.index('-C') + 1]}\n")
    elif argv[:2] == ("openssl", "req"):
        Path(argv[argv.index("-keyout") + 1]).write_text("private\n")
        Path(argv[argv.index("-out") + 1]).write_text("certificate\n")
    elif argv[:2] == ("openssl", "x509"):
        return Answer(f"sha256 Fingerprint={make.FINGERPRINT}\n")
    elif argv[:2] == ("openvpn", "--genkey"):
        Path(argv[-1]).write_text("static\n")
    elif argv == wireguard.MAKE_KEY:
        return Answer("wg-private\n")
    elif argv == wireguard.PUBLIC_KEY:
        return Answer(f"{WG_PUBLIC}\n")
    else:
        return None
    return Answer()


@pytest.fixture(autouse=True)
def _makers(programs: Programs) -> None:
    programs.machine = maker


def test_keys_are_made_once(programs: Programs) -> None:
    keys.make_own(PEER, "server")
    made = {path.relative_to(keys.ROOT): path.read_text() for path in keys.ROOT.rglob("*") if path.is_file()}
    count = len(programs.ran)
    keys.make_own(PEER, "server")
    assert len(programs.ran) == count
    assert {str(p) for p in made} == {
        "backup/ssh", "backup/ssh.pub", "backup/tunnel.crt", "backup/tunnel.key",
        "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        (TunnelMode.OPENVPN, {"tunnel.key", "tunnel.crt"}),
        (TunnelMode.WIREGUARD, {"wireguard.key"}),
        (TunnelMode.STATIC_KEY, set()),
        (TunnelMode.NONE, set()),
    ],
)
def test_each_mode_has_its_own_keys(mode: TunnelMode, files: set[str]) -> None:
    keys.make_own(other(mode), "server")
    assert {p.name for p in keys.directory("backup").iterdir()} - {"ssh", "ssh.pub"} == files


def test_private_keys_and_their_directories_are_for_root_alone() -> None:
    for mode in TunnelMode:
        keys.make_own(other(mode), "server")
    keys.make_static_key("backup")
    keys.make_drbd_secret("backup")
    assert stat.S_IMODE(keys.ROOT.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys.directory("backup").stat().st_mode) == 0o700
    for name in ("tunnel.key", "wireguard.key", "static.key", "drbd.secret"):
        assert stat.S_IMODE((keys.directory("backup") / name).stat().st_mode) == 0o600, name


def test_no_private_key_is_in_an_argument(programs: Programs) -> None:
    for mode in TunnelMode:
        keys.make_own(other(mode), "server")
        keys.tunnel_identity(other(mode))
    words = " ".join(word for argv in programs.ran for word in argv)
    assert "private" not in words.replace(str(keys.ROOT), "")
    assert "wg-private\n" in programs.inputs, "it goes in by standard input"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(8))
def test_killed_while_making_keys_the_next_run_has_matching_halves(
    step: int, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def killing(real: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step + 1:
                raise Killed
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "replace", killing(Path.replace))
    programs.machine = killing(maker)
    with suppress(Killed):
        keys.make_own(PEER, "server")
    monkeypatch.undo()
    if (keys.ROOT / "backup/ssh").exists():
        assert (keys.ROOT / "backup/ssh.pub").exists()
    if (keys.ROOT / "backup/tunnel.key").exists():
        assert (keys.ROOT / "backup/tunnel.crt").exists()


def test_the_drbd_secret_is_long_and_stays() -> None:
    secret = keys.make_drbd_secret("backup")
    assert len(secret) == 48
    assert keys.make_drbd_secret("backup") == secret


def test_identities_by_mode() -> None:
    for mode, expected in (
        (TunnelMode.OPENVPN, make.FINGERPRINT),
        (TunnelMode.WIREGUARD, WG_PUBLIC),
        (TunnelMode.STATIC_KEY, ""),
        (TunnelMode.NONE, ""),
    ):
        keys.make_own(other(mode), "server")
        assert keys.tunnel_identity(other(mode)) == expected


def test_a_public_key_is_its_type_and_itself() -> None:
    keys.make_own(PEER, "server")
    assert keys.public_ssh_key(keys.directory("backup") / "ssh") == make.SSH_KEY
    assert keys.public_ssh_key(keys.directory("backup") / "nothing") == ""


OPENED = keys.OpenInvitation(
    keys.token_hash("ab" * 32), datetime(2026, 1, 2, tzinfo=UTC), make.FINGERPRINT, make.SSH_KEY
)


def test_the_server_keeps_nothing_of_an_invitation_that_could_be_used_in_its_place() -> None:
    keys.keep_invitation("backup", OPENED)
    assert keys.open_invitation("backup") == OPENED
    text = (keys.directory("backup") / "invitation.json").read_text()
    assert "ab" * 32 not in text
    keys.close_invitation("backup")
    assert keys.open_invitation("backup") is None


def test_credentials_let_in_the_peer_and_an_open_invitation() -> None:
    site = make.site(peers={"backup": replace(PEER, fingerprint=make.FINGERPRINT)})
    assert keys.credentials(site)["backup"].fingerprints == (make.FINGERPRINT,)
    keys.keep_invitation("backup", replace(OPENED, fingerprint="CD"))
    found = keys.credentials(site)["backup"]
    assert found.fingerprints == (make.FINGERPRINT, "CD")
    assert found.enrol_key == make.SSH_KEY
    keys.keep_invitation("backup", replace(OPENED, fingerprint="CD", used=True))
    assert keys.credentials(site)["backup"].fingerprints == (make.FINGERPRINT,)


def test_reading_credentials_makes_no_directory() -> None:
    keys.credentials(make.site())
    assert not keys.ROOT.exists()


@pytest.mark.skipif(
    not all(map(shutil.which, ("ssh-keygen", "openssl", "openvpn"))), reason="a program is not installed"
)
@pytest.mark.usefixtures("real_programs")
def test_the_real_programs_make_the_real_keys() -> None:
    keys.make_own(PEER, "server")
    keys.make_static_key("backup")
    assert keys.public_ssh_key(keys.directory("backup") / "ssh").startswith("ssh-ed25519 AAAA")
    fingerprint = keys.tunnel_identity(PEER)
    assert fingerprint == keys.certificate_fingerprint(keys.directory("backup") / "tunnel.crt")
    assert len(fingerprint) == 95
    assert "BEGIN OpenVPN Static key" in keys.make_static_key("backup")
    for name in ("ssh", "tunnel.key", "static.key"):
        assert stat.S_IMODE((keys.directory("backup") / name).stat().st_mode) == 0o600, name


@pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed")
@pytest.mark.usefixtures("real_programs")
def test_the_real_wg_makes_keys_that_the_protocol_takes() -> None:
    from drbd_offsite.protocol import FINGERPRINT

    keys.make_own(other(TunnelMode.WIREGUARD), "server")
    assert FINGERPRINT.match(keys.tunnel_identity(other(TunnelMode.WIREGUARD)))


def test_the_commands_that_make_keys() -> None:
    assert ssh.make_key("/k", "c")[-2:] == ("-f", "/k")
    assert openvpn.make_static_key("/k") == ("openvpn", "--genkey", "secret", "/k")
