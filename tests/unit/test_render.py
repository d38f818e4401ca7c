"""What is rendered is what was read by a person (tests/data/golden), and what the real programs take."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import render
from drbd_offsite.model import RESYNC_RATES, Flavour, TunnelMode
from drbd_offsite.render import Credentials

from . import golden, make

DRBDADM, OPENVPN, ANALYZE, KEYGEN, WG_QUICK = map(
    shutil.which, ("drbdadm", "openvpn", "systemd-analyze", "ssh-keygen", "wg-quick")
)
DEBIAN = Path(__file__).parents[2] / "debian"
HERE = os.uname().nodename
GRAMMARS = ("8.4.11", "9.1.17")
scenes = pytest.mark.parametrize("scene", golden.SCENES)


@scenes
def test_rendered_files_are_the_ones_that_were_read(scene: str) -> None:
    rendered = {file.path: file.text for file in golden.SCENES[scene].render()}
    assert rendered == golden.kept(scene), "if it is meant to be so: PYTHONPATH=src:tests python3 -m unit.golden"


@scenes
def test_every_file_says_first_that_it_is_generated(scene: str) -> None:
    for file in golden.SCENES[scene].render():
        assert file.text.startswith(render.HEADER + "\n"), file.path
        assert file.text.endswith("\n")
        assert "\n\n\n" not in file.text


@scenes
def test_a_secret_is_in_files_for_root_alone(scene: str) -> None:
    for file in golden.SCENES[scene].render():
        if make.SECRET in file.text:
            assert file.mode == 0o600


@scenes
def test_rendering_twice_gives_the_same_bytes(scene: str) -> None:
    assert golden.SCENES[scene].render() == golden.SCENES[scene].render()


# -- DRBD ----------------------------------------------------------------------------------------


def dump(files: dict[str, str], home: Path, grammar: str) -> subprocess.CompletedProcess[str]:
    """What the real drbdadm understands, in the grammar of a version of the kernel module."""
    for path, text in files.items():
        (home / Path(path).name).write_text(text)
    # 8.4 and 9 look whether the address is there; no address of a tunnel is here.
    (home / "root.conf").write_text(f'global {{ usage-count no; disable-ip-verification; }}\ninclude "{home}/*.res";\n')
    return subprocess.run(
        [DRBDADM, "-c", str(home / "root.conf"), "dump"],
        env={**os.environ, "DRBD_DRIVER_VERSION_OVERRIDE": grammar, "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def resource_files(scene: golden.Scene) -> dict[str, str]:
    return {file.path: file.text for file in scene.render(HERE) if file.path.endswith(".res")}


needs_drbdadm = pytest.mark.skipif(DRBDADM is None, reason="drbdadm is not installed")
with_resources = pytest.mark.parametrize("scene", ["server", "backup", "server-battery-backed"])


@needs_drbdadm
@pytest.mark.parametrize("grammar", GRAMMARS)
@with_resources
def test_drbdadm_understands_every_resource_file(scene: str, grammar: str, tmp_path: Path) -> None:
    done = dump(resource_files(golden.SCENES[scene]), tmp_path, grammar)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    assert f"resource test_a on {HERE}: not ignored" in done.stdout
    assert f"resource large on {HERE}: not ignored" in done.stdout
    for line in (
        r"protocol +A;", r"cram-hmac-alg +sha256;", f"shared-secret +{make.SECRET};",
        r"on-io-error +call-local-io-error;",
        r"meta-disk +/dev/local/drbd_meta \[0\];",
        r"meta-disk +/dev/local/large_drbd_meta;",
        r"after-sb-0pri +disconnect;", r"after-sb-1pri +disconnect;", r"after-sb-2pri +disconnect;",
    ):  # fmt: skip
        assert re.search(line, done.stdout), line
    assert ("disk-flushes" in done.stdout) is (scene == "server-battery-backed")
    # On both machines it could be two orders, in which each waits for the other.
    assert bool(re.search(r"resync-after +test_a/0;", done.stdout)) is scene.startswith("server")


@needs_drbdadm
@pytest.mark.parametrize("grammar", GRAMMARS)
def test_drbdadm_would_complain_about_a_mistake(grammar: str, tmp_path: Path) -> None:
    """So the test above means something."""
    broken = {
        path: text.replace("csums-alg", "csum-alg") for path, text in resource_files(golden.SCENES["server"]).items()
    }
    assert dump(broken, tmp_path, grammar).returncode != 0


@needs_drbdadm
@pytest.mark.parametrize("link_speed", [1, 2, 10, 1000, 100000])
def test_drbdadm_takes_the_rates_of_every_link(link_speed: int, tmp_path: Path) -> None:
    peer = make.peer(link_speed=link_speed)
    scene = golden.Scene(make.site(peers={peer.name: peer}), {peer.name: golden.ENROLLED})
    done = dump(resource_files(scene), tmp_path, "8.4.11")
    assert done.returncode == 0, done.stderr


@needs_drbdadm
@pytest.mark.parametrize("resync_rate", [RESYNC_RATES[0], 500, RESYNC_RATES[-1]])
def test_drbdadm_takes_every_rate_of_a_resource(resync_rate: int, tmp_path: Path) -> None:
    resource = replace(make.resource(), resync_rate=resync_rate)
    scene = golden.Scene(make.site(resources={"test_a": resource}), {"backup": golden.ENROLLED})
    files = resource_files(scene)
    assert any(f"c-max-rate {resync_rate}k;" in text for text in files.values())
    done = dump(files, tmp_path, "8.4.11")
    assert done.returncode == 0, done.stderr


@given(st.integers(1, 100000), st.sampled_from([RESYNC_RATES[0], 500, RESYNC_RATES[-1]]) | st.integers(250, 10**6))
def test_a_resource_s_own_rate_holds_whatever_the_link_is(link_speed: int, resync_rate: int) -> None:
    limits, usual = render.limits(link_speed, resync_rate), render.limits(link_speed)
    assert limits.max_rate == resync_rate
    assert 0 < limits.min_rate <= min(resync_rate, usual.min_rate)
    assert 64 <= limits.fill_target <= usual.fill_target
    assert replace(limits, max_rate=0, min_rate=0, fill_target=0) == replace(
        usual, max_rate=0, min_rate=0, fill_target=0
    )


@given(st.integers(1, 100000))
def test_a_resync_takes_no_more_than_the_link_and_stays_within_drbd_s_ranges(link_speed: int) -> None:
    limits = render.limits(link_speed)
    link = link_speed * 1_000_000 / 8 / 1024
    assert limits.max_rate <= max(link, 250), "less than 250 KiB/s is no rate that DRBD takes"
    assert 0 < limits.min_rate <= limits.max_rate
    assert limits.congestion_fill < render.SEND_BUFFER_KIB, "pull-ahead before the buffer is full"
    assert limits.congestion_extents < limits.al_extents
    assert 0 < limits.fill_target <= render.SEND_BUFFER_KIB
    faster = render.limits(min(link_speed + 1, 100000))
    assert faster.max_rate >= limits.max_rate


def test_rates_of_the_how_to_s_link() -> None:
    """100 Mbit/s are 12 MiB/s, and one round trip's worth is about 600 KiB."""
    limits = render.limits(100)
    assert (limits.max_rate, limits.min_rate, limits.fill_target) == (12207, 1024, 610)


@given(st.integers(3, 100000))
def test_what_is_on_its_way_when_a_server_goes_ahead_takes_the_link_a_second_at_most(link_speed: int) -> None:
    assert render.limits(link_speed).congestion_fill <= link_speed * 1_000_000 / 8 / 1024


def test_the_first_resource_of_a_line_syncs_first_and_each_other_after_the_one_before() -> None:
    files = {
        f.path: f.text for f in golden.Scene(make.site(resources=("a", "b", "c")), {"backup": golden.ENROLLED}).render()
    }
    assert "resync-after" not in files["/etc/drbd.d/0_a.res"]
    assert 'resync-after "a/0"' in files["/etc/drbd.d/1_b.res"]
    assert 'resync-after "b/0"' in files["/etc/drbd.d/2_c.res"]


def test_a_priority_changes_the_order_of_syncs_and_nothing_else() -> None:
    plain = make.site(resources=("a", "b"))
    first = replace(plain, resources={**plain.resources, "b": replace(plain.resources["b"], priority=1)})
    before, after = (
        {f.path: f.text for f in golden.Scene(site, {"backup": golden.ENROLLED}).render()} for site in (plain, first)
    )
    assert {path for path in before if before[path] != after[path]} == {"/etc/drbd.d/0_a.res", "/etc/drbd.d/1_b.res"}
    assert "resync-after" not in after["/etc/drbd.d/1_b.res"]
    assert 'resync-after "b/0"' in after["/etc/drbd.d/0_a.res"]


@needs_drbdadm
def test_drbdadm_takes_an_order_that_is_not_the_files(tmp_path: Path) -> None:
    plain = make.site(resources=("a", "b"))
    first = replace(plain, resources={**plain.resources, "b": replace(plain.resources["b"], priority=1)})
    done = dump(resource_files(golden.Scene(first, {"backup": golden.ENROLLED})), tmp_path, "8.4.11")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert re.search(r"resync-after +b/0;", done.stdout)


# -- the tunnel ----------------------------------------------------------------------------------


def tunnel_config(scene: str) -> str:
    return next(f.text for f in golden.SCENES[scene].render() if "/openvpn/" in f.path)


OPENVPN_SCENES = [
    name for name in golden.SCENES if "wireguard" not in name and "line" not in name and "before" not in name
]


def complaints(text: str, home: Path) -> list[str]:
    """What the real openvpn says of a configuration whose key files are not there."""
    (home / "tunnel.conf").write_text(text)
    done = subprocess.run(
        [OPENVPN, "--config", str(home / "tunnel.conf")], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode != 0
    return [line for line in done.stdout.splitlines() if "ptions error" in line and "Please correct" not in line]


@pytest.mark.skipif(OPENVPN is None, reason="openvpn is not installed")
@pytest.mark.parametrize("scene", OPENVPN_SCENES)
def test_openvpn_misses_nothing_but_the_keys(scene: str, tmp_path: Path) -> None:
    expected = {"--secret"} if "static" in scene else {"--cert", "--key"}
    found = complaints(tunnel_config(scene), tmp_path)
    assert {
        re.sub(r".*(--\w+) fails with '(/etc/drbd-offsite/keys/.*)': No such file.*", r"\1", c) for c in found
    } == expected


@pytest.mark.skipif(OPENVPN is None, reason="openvpn is not installed")
@pytest.mark.parametrize("mistake", ["persist-tunnel", "tls-server", "proto sctp", "cipher"])
def test_openvpn_would_complain_about_a_mistake(mistake: str, tmp_path: Path) -> None:
    found = complaints(f"{tunnel_config('backup')}{mistake}\n", tmp_path)
    assert not all("fails with" in complaint for complaint in found)


@pytest.mark.skipif(WG_QUICK is None or os.geteuid() != 0, reason="wg-quick is not installed, or this is not root")
@pytest.mark.parametrize("scene", ["server-wireguard", "backup-wireguard"])
def test_wireguard_reads_its_configuration(scene: str, tmp_path: Path) -> None:
    path = tmp_path / "tun0.conf"
    path.write_text(next(f.text for f in golden.SCENES[scene].render() if "/wireguard/" in f.path))
    path.chmod(0o600)
    done = subprocess.run([WG_QUICK, "strip", str(path)], capture_output=True, text=True, check=True)
    assert f"PublicKey = {golden.WIREGUARD_KEY}" in done.stdout


@pytest.mark.parametrize("dials", Flavour)
@pytest.mark.parametrize("flavour", Flavour)
def test_exactly_one_side_dials(flavour: Flavour, dials: Flavour) -> None:
    site = golden.bare(flavour, dials=dials)
    text = next(f.text for f in golden.Scene(site, {flavour.other: golden.ENROLLED}).render() if "/openvpn/" in f.path)
    assert ("\nremote " in text) is (flavour is dials)
    assert ("\nfloat" in text) is (flavour is not dials)


def test_no_tunnel_is_rendered_before_there_is_anybody_to_let_in() -> None:
    """peer-fingerprint with an empty list would be a tunnel for nobody, or an error at start."""
    for mode in TunnelMode:
        assert golden.Scene(golden.bare(Flavour.SERVER, mode)).render() == ()


def test_an_invitation_s_certificate_is_let_in_beside_the_peer_s() -> None:
    both = replace(golden.ENROLLED, fingerprints=(make.FINGERPRINT, golden.OTHER_FINGERPRINT))
    text = next(
        f.text for f in golden.Scene(golden.bare(Flavour.SERVER), {"backup": both}).render() if "/openvpn/" in f.path
    )
    inside = text.partition("<peer-fingerprint>\n")[2].partition("</peer-fingerprint>")[0]
    assert inside.split() == [make.FINGERPRINT, golden.OTHER_FINGERPRINT]


# -- the peer's way in ---------------------------------------------------------------------------


def authorized(scene: golden.Scene) -> str:
    return next(f.text for f in scene.render() if f.path.endswith("authorized_keys"))


def test_an_invitation_s_key_can_only_enrol_and_only_on_the_server() -> None:
    line = authorized(golden.SCENES["server-with-an-open-invitation"]).splitlines()[1]
    assert 'command="/usr/bin/drbd-offsite peer-service --enrol backup"' in line
    invited = replace(golden.ENROLLED, enrol_key="ssh-ed25519 " + "B" * 68)
    assert "--enrol" not in authorized(golden.Scene(golden.bare(Flavour.BACKUP), {"server": invited}))


def test_the_way_in_is_one_command_from_the_far_end_of_the_tunnel() -> None:
    (line,) = authorized(golden.SCENES["server"]).splitlines()[1:]
    assert line.startswith(
        'restrict,from="10.89.33.2",command="/usr/bin/drbd-offsite peer-service backup" ssh-ed25519 '
    )


@pytest.mark.skipif(KEYGEN is None, reason="ssh-keygen is not installed")
def test_openssh_reads_the_authorized_keys(tmp_path: Path) -> None:
    subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True)
    key = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    scene = golden.Scene(golden.bare(Flavour.SERVER), {"backup": replace(golden.INVITING, ssh_key=key, enrol_key=key)})
    (tmp_path / "a").write_text(authorized(scene))
    listed = subprocess.run([KEYGEN, "-l", "-f", tmp_path / "a"], capture_output=True, text=True, check=True)
    assert listed.stdout.count("ED25519") == 2


# -- systemd -------------------------------------------------------------------------------------


@pytest.mark.skipif(ANALYZE is None or not DEBIAN.is_dir(), reason="systemd-analyze or debian/ is not there")
@pytest.mark.parametrize("scene", ["server", "backup"])
def test_systemd_reads_the_drop_ins(scene: str, tmp_path: Path) -> None:
    for file in golden.SCENES[scene].render():
        if "/systemd/" in file.path:
            path = tmp_path / Path(file.path).relative_to("/etc/systemd/system")
            path.parent.mkdir()
            path.write_text(file.text)
    for unit, source in (
        ("drbd-offsite@test_a.service", "drbd-offsite-common@.drbd-offsite.service"),
        ("drbd-offsite-peer.socket", "drbd-offsite-common.drbd-offsite-peer.socket"),
        ("drbd-offsite-peer@.service", "drbd-offsite-common@.drbd-offsite-peer.service"),
    ):
        # What they start is not installed here.
        text = re.sub(r"(?m)^(Exec\w+=-?)\S+.*", r"\1/bin/true", (DEBIAN / source).read_text())
        (tmp_path / unit).write_text(text)
    verified = [tmp_path / f"drbd-offsite{name}" for name in ("@test_a.service", "-peer.socket")]
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *verified],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "drbd-offsite" in line]) == (0, [])


def test_a_unit_waits_for_both_of_its_volumes_and_needs_neither() -> None:
    text = golden.kept("server")["/etc/systemd/system/drbd-offsite@test_a.service.d/volume.conf"]
    for unit in ("dev-local-test_a.device", "dev-local-drbd_meta.device"):
        assert f"Wants={unit}" in text
        assert f"After={unit}" in text
    assert "Requires=" not in text
    assert "BindsTo=" not in text


def test_the_peer_service_listens_at_the_tunnel_s_end_only() -> None:
    text = golden.kept("server")["/etc/systemd/system/drbd-offsite-peer.socket.d/address.conf"]
    assert re.findall(r"ListenStream=(.*)", text) == ["10.89.33.1:7788"]
    assert "IPAddressDeny=any" in text
    assert re.findall(r"IPAddressAllow=(.*)", text) == ["10.89.33.2"]


def test_a_template_s_unknown_word_is_an_error_and_no_empty_text() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render._templates().from_string("{{ nobody }}").render()


def test_a_site_without_credentials_renders_its_resources() -> None:
    """A lost key directory must not take the resource files away."""
    files = golden.Scene(make.site()).render()
    assert "/etc/drbd.d/0_test_a.res" in {file.path for file in files}
    assert Credentials().drbd_secret == ""
