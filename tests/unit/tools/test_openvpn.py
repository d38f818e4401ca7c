from pathlib import Path

import pytest

from drbd_offsite.tools import openvpn

from .. import make

DATA = Path(__file__).parents[2] / "data/openvpn"
VERSIONS = sorted(path.name for path in DATA.iterdir() if path.name[0].isdigit())

SAID = {
    "wrong-port-backup": "nothing listens on that port",
    "both-dial-backup": "perhaps both sides dial",
    "both-dial-server": "perhaps both sides dial",
    "wrong-address-backup": "no route",
    "wrong-address-after-a-minute-backup": "no route",
    "no-route-backup": "no route",
    "no-name-backup": "cannot be resolved",
    "no-answer-backup": "a wrong address, a closed port",
    "port-taken-server": "taken by another program",
    "wrong-fingerprint-of-server-backup": "key was refused",
    "wrong-fingerprint-of-backup-server": "key was refused",
    # The side that is refused hears nothing of it, but knows that the other end answered.
    "wrong-fingerprint-of-backup-backup": "key was refused",
    "wrong-fingerprint-of-backup-after-a-minute-backup": "key was refused",
    "static-wrong-key-server": "key was refused",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scene", SAID)
def test_the_log_of_a_tunnel_that_does_not_come_up_names_the_likeliest_cause(version: str, scene: str) -> None:
    cause = openvpn.diagnose((DATA / version / f"{scene}.log").read_text())
    assert SAID[scene] in cause.what
    assert cause.remedy.endswith(".")


@pytest.mark.parametrize("scene", ["certificate-expired", "certificate-not-yet-valid", "up", "static-up"])
def test_a_wrong_clock_does_not_keep_the_tunnel_down(scene: str) -> None:
    """With peer-fingerprint and no authority, dates in certificates do not matter: captured, not argued."""
    for side in ("server", "backup"):
        for path in DATA.glob(f"*/{scene}-{side}.log"):
            assert "Initialization Sequence Completed" in path.read_text(), path


def test_an_empty_log_is_silence_and_has_a_remedy_too() -> None:
    assert openvpn.diagnose("") is openvpn.SILENCE
    assert "reachable_as" in openvpn.SILENCE.remedy


def test_a_clock_is_named_where_openvpn_names_it() -> None:
    # "VERIFY ERROR" of a mode with an authority (openvpn, ssl_verify_openssl.c); not captured here.
    log = "VERIFY ERROR: depth=0, error=certificate is not yet valid: CN=server"
    assert "clocks" in openvpn.diagnose(log).what


def test_a_fingerprint_is_taken_from_openssl_s_words() -> None:
    assert openvpn.parse_fingerprint(f"sha256 Fingerprint={make.FINGERPRINT}\n") == make.FINGERPRINT


@pytest.mark.parametrize("text", ["", "sha1 Fingerprint=AB:CD", f"{make.FINGERPRINT}:00", "unable to load certificate"])
def test_anything_else_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        openvpn.parse_fingerprint(text)


def test_a_certificate_is_made_without_a_question_and_its_key_is_a_file_and_no_argument() -> None:
    argv = openvpn.make_certificate("/k", "/c", "server")
    assert "-nodes" in argv
    assert argv[argv.index("-keyout") + 1] == "/k"
    assert argv[argv.index("-subj") + 1] == "/CN=server"


HOWTO = Path(__file__).parents[2] / "data/adopt/howto"


def test_the_how_to_s_two_ends_are_read() -> None:
    server, backup = (openvpn.parse_setup((HOWTO / side / "server.conf").read_text()) for side in ("server", "backup"))
    assert server == openvpn.Setup(remote="", port="1194", near_end="10.89.33.1", far_end="10.89.33.2")
    assert backup == openvpn.Setup("server.ip.address", "1194", "10.89.33.2", "10.89.33.1")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("port 5000", "5000"),
        ("port 5000\nremote x 6000", "6000"),
        ("port 5000 # not 1194", "5000"),
        (";port 5000", "1194"),
    ],
)
def test_a_port_of_a_tunnel_made_by_hand_is_the_one_that_is_dialled(text: str, port: str) -> None:
    assert openvpn.parse_setup(text).port == port
