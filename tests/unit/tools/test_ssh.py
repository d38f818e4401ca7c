import shutil
import subprocess
from pathlib import Path

import pytest

from drbd_offsite.tools import ssh, wireguard

KEYGEN = shutil.which("ssh-keygen")


def test_a_request_asks_nobody_and_believes_nobody_else() -> None:
    argv = ssh.request("10.89.33.1", 7788, "/keys/ssh", "/keys/known_hosts", 15)
    for option in ("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"):
        assert argv[argv.index(option) - 1] == "-o"
    assert argv[1:3] == ("-F", "none"), "the admin's configuration may forward or proxy"
    assert "UserKnownHostsFile=/keys/known_hosts" in argv
    assert "GlobalKnownHostsFile=/dev/null" in argv
    assert argv[-1] == "root@10.89.33.1", "the command is the peer's to choose"


def test_a_key_is_let_in_from_one_address_for_one_command() -> None:
    line = ssh.authorized("ssh-ed25519 AAAA", "/usr/bin/drbd-offsite peer-service backup", "10.89.33.2")
    assert line == ('restrict,from="10.89.33.2",command="/usr/bin/drbd-offsite peer-service backup" ssh-ed25519 AAAA\n')


@pytest.mark.skipif(KEYGEN is None, reason="ssh-keygen is not installed")
def test_openssh_understands_what_is_written_for_it(tmp_path: Path) -> None:
    subprocess.run(ssh.make_key(str(tmp_path / "key"), "drbd-offsite test"), check=True, capture_output=True)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    (tmp_path / "authorized_keys").write_text(ssh.authorized(public, "/usr/bin/true x", "10.89.33.2"))
    listed = subprocess.run(
        [KEYGEN, "-l", "-f", str(tmp_path / "authorized_keys")], capture_output=True, text=True, check=True
    )
    assert "ED25519" in listed.stdout
    (tmp_path / "known_hosts").write_text(ssh.known_host("10.89.33.1", 7788, public))
    found = subprocess.run(
        [KEYGEN, "-F", "[10.89.33.1]:7788", "-f", str(tmp_path / "known_hosts")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert public in found.stdout


def test_a_wireguard_key_is_no_argument() -> None:
    assert wireguard.MAKE_KEY == ("wg", "genkey")
    assert wireguard.PUBLIC_KEY == ("wg", "pubkey")
