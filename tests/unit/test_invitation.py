import base64
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import invitation
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.invitation import Invitation
from drbd_offsite.model import Flavour, Tunnel, TunnelMode

from . import make

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PEM = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(["ab+/" * 16] * 3) + "\n-----END PRIVATE KEY-----\n"
STATIC = "#\n# 2048 bit OpenVPN static key\n#\n" + PEM.replace("PRIVATE KEY", "OpenVPN Static key V1")
MADE = Invitation(
    token="ab" * 32,
    expires=NOW + invitation.LIFETIME,
    server_hostname="server.example.org",
    link_speed=100,
    service_port=7788,
    tunnel=make.TUNNEL,
    server_fingerprint=make.FINGERPRINT,
    tunnel_certificate=PEM.replace("PRIVATE KEY", "CERTIFICATE"),
    tunnel_key=PEM,
    server_ssh_key=make.SSH_KEY,
    server_ssh_host_key=make.SSH_KEY,
    ssh_key=PEM.replace("PRIVATE", "OPENSSH PRIVATE"),
    drbd_secret=make.SECRET,
)
TEXT = invitation.compose(MADE)


def refusal(text: str, now: datetime = NOW) -> str:
    with pytest.raises(Refused) as raised:
        invitation.parse(text, now)
    assert raised.value.exit_code is ExitCode.REFUSED
    assert "drbd-offsite invite" in raised.value.hint
    return raised.value.message


def test_an_invitation_arrives_as_it_was_made() -> None:
    assert invitation.parse(TEXT, NOW) == MADE


def test_it_can_be_pasted_as_one_line() -> None:
    line = invitation.one_line(TEXT)
    assert "\n" not in line
    assert invitation.parse(line, NOW) == MADE
    assert invitation.parse(f"  {line[:50]} {line[50:]}\n", NOW) == MADE, "a terminal may wrap it"


def test_it_survives_the_line_ends_of_another_system_and_white_space_around() -> None:
    assert invitation.parse(f"\n{TEXT}\n\n", NOW) == MADE
    assert invitation.parse(TEXT.replace("\n", "\r\n"), NOW) == MADE


BASE64 = st.text(
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="), min_size=1, max_size=64
)
BLOCKS = st.lists(BASE64, min_size=1, max_size=4).map(
    lambda ls: "\n".join(["-----BEGIN X-----", *ls, "-----END X-----", ""])
)
KEYS = st.sampled_from(["", PEM, STATIC, "cGluZw=="]) | BLOCKS
TUNNELS = st.builds(
    Tunnel,
    st.sampled_from(TunnelMode),
    st.sampled_from(["tun0", "wg-off"]),
    st.sampled_from(Flavour),
    st.sampled_from(["", "server.example.org", "192.0.2.1", "2001:db8::1"]),
    st.integers(1, 65535),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=4).map(str),
)
INVITATIONS = st.builds(
    Invitation,
    token=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    expires=st.integers(1, 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    server_hostname=st.sampled_from(["server", "a.b.example.org"]),
    link_speed=st.integers(1, 100000),
    service_port=st.integers(1, 65535),
    tunnel=TUNNELS,
    server_fingerprint=st.sampled_from(["", make.FINGERPRINT, "A" * 43 + "="]),
    tunnel_certificate=KEYS,
    tunnel_key=KEYS,
    server_ssh_key=st.just(make.SSH_KEY),
    server_ssh_host_key=st.just(make.SSH_KEY),
    ssh_key=KEYS,
    drbd_secret=st.from_regex(r"[0-9a-f]{48}", fullmatch=True),
)


@given(INVITATIONS)
def test_any_invitation_arrives_as_it_was_made_in_both_forms(made: Invitation) -> None:
    text = invitation.compose(made)
    for form in (text, invitation.one_line(text)):
        found = invitation.parse(form, NOW)
        assert found == made
        assert found.check_words == made.check_words


@pytest.mark.skipif(shutil.which("openvpn") is None, reason="openvpn is not installed")
def test_a_real_static_key_survives(tmp_path: Path) -> None:
    subprocess.run(["openvpn", "--genkey", "secret", tmp_path / "key"], check=True, capture_output=True)
    made = replace(MADE, tunnel_key=(tmp_path / "key").read_text())
    assert invitation.parse(invitation.compose(made), NOW) == made


@pytest.mark.parametrize("count", range(len(TEXT.splitlines())))
def test_one_that_is_cut_off_at_any_line_is_refused(count: int) -> None:
    torn = "\n".join(TEXT.splitlines()[:count])
    message = refusal(torn)
    assert "cut off" in message or count == 0
    assert refusal(invitation.one_line(torn))


def test_one_that_is_cut_off_in_the_middle_of_a_line_is_refused() -> None:
    for length in range(len(TEXT) - 2):
        refusal(TEXT[:length])


def test_one_line_that_is_cut_off_is_refused() -> None:
    line = invitation.one_line(TEXT)
    for length in range(0, len(line) - 4, 7):
        refusal(line[:length])


@given(st.integers(0, len(TEXT) - 1), st.characters(blacklist_categories=("Cs",)) | st.sampled_from(list("\n :-a0")))
def test_any_altered_character_is_refused_or_changes_nothing(place: int, character: str) -> None:
    altered = TEXT[:place] + character + TEXT[place + 1 :]
    for form in (altered, invitation.one_line(altered)):
        try:
            assert invitation.parse(form, NOW) == MADE
        except Refused:
            continue


def test_a_digit_more_or_less_anywhere_is_refused() -> None:
    for number, line in enumerate(TEXT.splitlines()):
        for changed in (line + "0", line[:-1]):
            lines = TEXT.splitlines()
            lines[number] = changed
            refusal("\n".join(lines))


def test_one_that_is_too_old_is_refused_with_its_time() -> None:
    assert invitation.parse(TEXT, MADE.expires - timedelta(seconds=1))
    message = refusal(TEXT, MADE.expires)
    assert "expired" in message
    assert "2026-01-02 12:00" in message


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "hello", "Format: something 1\nX: y\n", "\x00", "ünïcödë", "aGVsbG8=", "/////w==", PEM, "Format: " * 9,
     base64.b64encode(b"\xff\xfe").decode(), TEXT.replace("invitation 1", "invitation 2"), "-----BEGIN PGP\n"],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_a_foreign_file_is_refused_as_such(text: str) -> None:
    assert "no invitation" in refusal(text) or "altered" in refusal(text)


@given(
    st.text(st.characters(blacklist_categories=("Cs",))) | st.binary().map(lambda raw: raw.decode("utf-8", "replace"))
)
def test_any_text_is_an_invitation_or_refused(text: str) -> None:
    with pytest.raises(Refused):
        invitation.parse(text, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "ab"},
        {"server_ssh_key": make.SSH_KEY + " x"},
        {"server_ssh_host_key": "ssh-rsa AAAA"},
        {"server_hostname": "../../etc/passwd"},
        {"server_hostname": "a b"},
        {"server_hostname": ""},
        {"drbd_secret": 'x"; } resource y {'},
        {"drbd_secret": ""},
        {"server_fingerprint": "</peer-fingerprint>"},
    ],
    ids=str,
)
def test_a_forged_one_with_a_right_checksum_cannot_reach_into_other_files(changes: dict[str, str]) -> None:
    assert "cannot be understood" in refusal(invitation.compose(replace(MADE, **changes)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("Tunnel-Mode", "ipsec"), ("Tunnel-Dials", "me"), ("Link-Speed", "fast"), ("Expires", "soon"),
     ("Expires", "2099-01-01T00:00:00"), ("Tunnel-Port", "")],
)  # fmt: skip
def test_a_forged_one_with_a_strange_value_is_refused(field: str, value: str) -> None:
    from debian.deb822 import Deb822

    paragraph = Deb822(TEXT.splitlines())
    paragraph[field] = value
    paragraph["Checksum"] = invitation._checksum(paragraph)
    assert "cannot be understood" in refusal(str(paragraph.dump()))


def test_check_words_are_short_and_differ_between_invitations() -> None:
    assert len(MADE.check_words) == 19
    assert MADE.check_words != replace(MADE, token="cd" * 32).check_words
    assert MADE.check_words == invitation.parse(TEXT, NOW).check_words


@pytest.mark.parametrize("more", ["127.0.0.1 localhost\n{}", "{}Another: field\n"])
def test_what_does_not_belong_to_it_is_an_alteration_too(more: str) -> None:
    assert "altered" in refusal(more.format(TEXT))
