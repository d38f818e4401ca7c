"""A machine that was set up by hand is taken over while it runs, and in spite of every interruption."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, keys
from drbd_offsite.errors import OffsiteError, Refused, UsageError
from drbd_offsite.model import Flavour, TunnelMode
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import adopt, half
from drbd_offsite.render import HEADER
from drbd_offsite.tools import drbd_dump

from .. import make
from ..conftest import Answer, Programs
from .handmade import DATA, HOWTO, SECRET, HandMade, Killed
from .test_enrol import Pair, enrolled

needs_drbdadm = pytest.mark.skipif(shutil.which("drbdadm") is None, reason="drbdadm is not installed")

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
Make = Callable[[Flavour], HandMade]
UNITS = {"drbd-offsite@test_a.service", "drbd-offsite-watch.service"}

INSTALLED = """\
# Who we are
[site]
  flavour = server
  volume_group = local  # as the package has asked

[peers]
  [[backup]]
    reachable_as = server.example.org
"""
"""As after the package's questions, and an edit."""

FSTAB = """\
UUID=0f0f / ext4 errors=remount-ro 0 1
/dev/drbd/by-res/test_a\t/srv/a\text4\tnoatime,x-systemd.requires=drbd.service 0 2
"""


@pytest.fixture
def machine(root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda flavour: HandMade(flavour, root, programs, monkeypatch)


def carry_out(names: Sequence[str] = (), flavour: Flavour | None = None) -> list[str]:
    """What ``adopt --yes`` does; returns what it tells."""
    told: list[str] = []
    proposal = adopt.propose(names, flavour)
    if proposal is not None:
        adopt.adopt(proposal, names, flavour, told.append)
    return told


def normal(text: str, root: Path) -> str:
    """With the paths of a real machine."""
    return text.replace(str(root), "")


def golden(flavour: Flavour, name: str) -> str:
    return (DATA / "adopt/golden" / flavour / name).read_text()


# -- the how-to ----------------------------------------------------------------------------------


def test_the_how_to_s_server_becomes_ours_and_keeps_what_an_admin_has_written(machine: Make) -> None:
    server = machine(SERVER)
    server.configure(INSTALLED)
    server.units.add("drbd.service")
    half.FSTAB.write_text(FSTAB)
    proposal = adopt.propose((), None)
    assert proposal is not None
    assert normal("\n".join(proposal.plan), server.root) + "\n" == golden(SERVER, "plan.txt")
    adopt.adopt(proposal, (), None, lambda _: None)
    assert config.PATH.read_text() == golden(SERVER, "drbd-offsite.conf")
    assert half.FSTAB.read_text() == golden(SERVER, "fstab")
    resource = config.load().resources["test_a"]
    assert (resource.here, resource.there) == (make.replica(), make.replica())
    assert server.units == UNITS


def test_the_how_to_s_backup_needs_no_answers_it_is_the_one_that_is_not_primary(machine: Make) -> None:
    backup = machine(BACKUP)
    proposal = adopt.propose((), None)
    assert proposal is not None
    assert normal("\n".join(proposal.plan), backup.root) + "\n" == golden(BACKUP, "plan.txt")
    adopt.adopt(proposal, (), None, lambda _: None)
    site = config.load()
    assert (site.flavour, str(site.metadata_pool), site.battery_backed_cache) == (BACKUP, "local/drbd_meta", True)
    assert site.peers["server"].hostname == "server"
    tunnel = site.peers["server"].tunnel
    assert (tunnel.mode, tunnel.device, tunnel.dials) == (TunnelMode.NONE, "tun0", BACKUP)
    assert (site.address_here(site.peers["server"]), tunnel.reachable_as) == ("10.89.33.2", "server.ip.address")
    assert site.resources["test_a"].here == make.replica()


def test_the_how_to_to_the_letter_is_refused_with_the_word_that_no_drbdadm_knows(machine: Make) -> None:
    server = machine(SERVER)
    before = server.texts()
    said = (DATA / "adopt/howto-exactly.xml.stderr").read_text()
    server.read_by = lambda argv: Answer("", 10, said if argv[0] == "env" else "the same in other words")
    with pytest.raises(Refused, match=r"global_common.conf:24: .* 'csum-alg'") as raised:
        adopt.propose((), None)
    assert "csums-alg" in raised.value.hint
    assert "PRETENDING" not in raised.value.message
    assert server.texts() == before


@pytest.mark.parametrize("flavour", [SERVER, BACKUP])
def test_the_old_file_is_kept_and_no_other_file_of_drbd_or_openvpn_is_touched(machine: Make, flavour: Flavour) -> None:
    by_hand = machine(flavour)
    before = by_hand.texts(["etc"])
    carry_out()
    after = by_hand.texts()
    ours = [path for path, text in after.items() if path in before and text != before[path]]
    assert ours == ["etc/drbd.d/0_test_a.res"]
    assert after["etc/drbd.d/0_test_a.res"].startswith(HEADER)
    assert after["var/lib/drbd-offsite/adopted/0_test_a.res"] == (HOWTO / "drbd.d/0_test_a.res").read_text()


def test_the_secret_goes_on_in_a_file_for_root_and_is_told_to_nobody(
    machine: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = machine(SERVER)
    monkeypatch.setattr("drbd_offsite.run.verbose", True)
    proposal = adopt.propose((), None)
    assert proposal is not None
    told = carry_out()
    secret = keys.ROOT / "backup/drbd.secret"
    assert secret.read_text().strip() == SECRET == keys.credentials(config.load())["backup"].drbd_secret
    for path in (secret, server.etc / "drbd.d/0_test_a.res"):
        assert path.stat().st_mode & 0o077 == 0
    said = capsys.readouterr()
    shown = "\n".join([*proposal.plan, *told, said.out, said.err, repr(proposal.adoption)])
    assert SECRET not in shown
    with_secret = {path for path, text in server.texts().items() if SECRET in text}
    assert with_secret == {
        "etc/drbd.d/0_test_a.res",
        "etc/drbd.d/global_common.conf",
        "etc/drbd-offsite/keys/backup/drbd.secret",
    }


def test_a_plan_changes_nothing(machine: Make) -> None:
    server = machine(SERVER)
    before = server.texts()
    assert adopt.propose((), None) is not None
    assert server.texts() == before
    assert journal.operations() == {}


def test_what_was_adopted_is_not_adopted_again(machine: Make) -> None:
    machine(SERVER)
    carry_out()
    assert adopt.propose((), None) is None
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended"]


def test_a_machine_that_changes_while_a_person_reads_is_left_alone(machine: Make) -> None:
    server = machine(SERVER)
    proposal = adopt.propose((), None)
    assert proposal is not None
    server.configure(INSTALLED)
    before = server.texts(["etc"])
    with pytest.raises(Refused, match="has changed since"):
        adopt.adopt(proposal, (), None, lambda _: None)
    assert server.texts(["etc"]) == before
    assert journal.operations() == {}


@pytest.mark.parametrize(("flavour", "state"), [(SERVER, "split-brain"), (BACKUP, "tunnel-stopped")])
def test_a_copy_that_may_be_kept_apart_is_held_before_anything_of_ours_could_connect_it(
    machine: Make, flavour: Flavour, state: str
) -> None:
    by_hand = machine(flavour)
    by_hand.state = state
    by_hand.kill_at = 2  # the journal has it, and nothing else was done
    with pytest.raises(Killed):
        carry_out(flavour=flavour)
    (hold,) = journal.holds()["test_a"]
    assert (hold.set_by, hold.forbids) == ("disconnect", {Forbidden.CONNECT})
    by_hand.kill_at = None
    carry_out(flavour=flavour)
    assert journal.holds() == {"test_a": (hold,)}


def test_what_is_connected_is_not_held(machine: Make) -> None:
    machine(SERVER)
    carry_out()
    assert journal.holds() == {}


# -- broken off ----------------------------------------------------------------------------------


def mountable_at_a_boot(server: HandMade) -> None:
    """The device by a name that drbdadm's file gives it, and after a unit that has something to bring up."""
    lines = [line for line in half.FSTAB.read_text().splitlines() if not line.startswith("#")]
    ours = any(path.read_text().startswith(HEADER) for path in server.etc.glob("drbd.d/*.res"))
    assert not (ours and any("by-res/test_a" in line for line in lines))
    assert "test_a" in config.PATH.read_text() or not any("drbd-offsite@" in line for line in lines)
    assert server.units & {"drbd.service", "drbd-offsite@test_a.service"}


@pytest.mark.parametrize("name", ["0_test_a.res", "mine.res"], ids=["our-name", "another-name"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_killed_at_any_step_it_is_finished_by_the_same_command(machine: Make, name: str, late: bool) -> None:
    """The fake drbdadm finds the resource in exactly one file at each look, or fails the test."""
    server = machine(SERVER)

    def again() -> None:
        for place in ("etc/drbd-offsite", "etc/systemd", "var"):
            shutil.rmtree(server.root / place, ignore_errors=True)
        config.PATH.parent.mkdir()
        server.make()
        server.units.clear()
        server.units.add("drbd.service")
        half.FSTAB.write_text(FSTAB)
        (server.etc / "drbd.d/0_test_a.res").rename(server.etc / "drbd.d" / name)
        server.configure(INSTALLED)
        server.steps = 0

    again()
    carry_out()
    finished = server.texts()
    assert server.steps > 9
    for number in range(1, server.steps + 1):
        again()
        server.kill_at = -number if late else number
        with pytest.raises(Killed):
            carry_out()
        server.kill_at = None
        mountable_at_a_boot(server)
        begun = bool(journal.operations())
        carry_out()
        assert server.texts() == finished, f"killed at step {number}"
        assert server.units == UNITS
        assert journal.operations() == {}
        assert begun or number == 1 or number == server.steps or late, "half-done work shows"


# -- what is read ----------------------------------------------------------------------------------


def test_what_only_the_parser_of_8_3_reads_is_adopted(machine: Make) -> None:
    server = machine(SERVER)
    server.dumps["by hand"] = "howto-83.xml"
    caught = server.read_by

    def read(argv: Sequence[str]) -> Answer:
        rendered = (Path(argv[argv.index("-c") + 1]).parent / "drbd.d/0_test_a.res").read_text().startswith(HEADER)
        if argv[0] == "env" and not rendered:
            return Answer("", 10, "/etc/drbd.d/0_test_a.res:14: Parse error: … 'delay-probe-volume'")
        return caught(("env", *argv[1:]))

    server.read_by = read
    carry_out()
    assert config.load().resources["test_a"].here == make.replica()


def test_a_drbdadm_that_would_not_read_the_result_keeps_it_from_being_written(machine: Make) -> None:
    server = machine(SERVER)
    caught, before = server.read_by, server.texts()

    def read(argv: Sequence[str]) -> Answer:
        root = Path(argv[argv.index("-c") + 1])
        return caught(tuple(argv)) if root == adopt.DRBD_CONF else Answer("", 10, f"{root.parent}/drbd.d/x.res:3: no")

    server.read_by = read
    with pytest.raises(Refused, match=r"would not read .*: /etc/drbd.d/x.res:3: no"):
        adopt.propose((), None)
    assert server.texts() == before


def test_a_resource_that_stays_drbdadm_s_must_not_be_read_otherwise_than_before(machine: Make) -> None:
    server = machine(SERVER)
    caught, before = server.read_by, server.texts()
    other = '<resource name="x" conf-file-line="/etc/drbd.d/x.res:1">{}</resource></config>'
    secret = '<section name="net"><option name="shared-secret" value="x"/></section>'

    def read(argv: Sequence[str]) -> Answer:
        now = Path(argv[argv.index("-c") + 1]) == adopt.DRBD_CONF
        answer = caught(tuple(argv))
        return replace(answer, stdout=answer.stdout.replace("</config>", other.format(secret if now else "")))

    server.read_by = read
    with pytest.raises(Refused, match="other options than now for x") as raised:
        adopt.propose(["test_a"], None)
    assert "global_common.conf" in raised.value.hint
    assert server.texts() == before


def test_what_a_program_prints_and_nobody_understands_is_no_traceback(machine: Make) -> None:
    machine(SERVER).read_by = lambda _: Answer("<config>")
    with pytest.raises(OffsiteError, match="not understood"):
        adopt.propose((), None)


def test_a_name_that_drbd_does_not_have_is_a_usage_error(machine: Make) -> None:
    machine(SERVER)
    with pytest.raises(UsageError, match="no resource test_b") as raised:
        adopt.propose(["test_b"], None)
    assert "test_a" in raised.value.hint


def test_without_the_kernel_s_module_nothing_runs_that_could_be_adopted(machine: Make) -> None:
    machine(SERVER)
    host.PROC_DRBD.unlink()
    with pytest.raises(Refused, match="not up"):
        adopt.propose((), None)


# -- with the real drbdadm ---------------------------------------------------------------------------


def really(argv: Sequence[str]) -> Answer:
    done = subprocess.run(
        argv,
        env=os.environ | {"DRBD_DRIVER_VERSION_OVERRIDE": "8.4.11"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Answer(done.stdout, done.returncode, done.stderr)


@pytest.fixture
def real(machine: Make) -> HandMade:
    server = machine(SERVER)
    server.read_by = lambda argv: replace(answer := really(argv), stdout=answer.stdout.replace(str(server.root), ""))
    return server


@needs_drbdadm
@pytest.mark.parametrize("name", ["0_test_a.res", "mine.res"])
def test_the_real_drbdadm_reads_the_how_to_and_what_takes_its_place(real: HandMade, name: str) -> None:
    (real.etc / "drbd.d/0_test_a.res").rename(real.etc / "drbd.d" / name)
    carry_out()
    dumped = drbd_dump.parse(really(drbd_dump.dump(str(adopt.DRBD_CONF))).stdout)["test_a"]
    assert (dumped.secret, dumped.options["protocol"], dumped.options["csums-alg"]) == (SECRET, "A", "sha1")
    assert [half.hostname for half in dumped.halves] == ["server", "backup"]


@needs_drbdadm
def test_the_real_drbdadm_refuses_the_how_to_to_the_letter(real: HandMade) -> None:
    shutil.copy(HOWTO / "drbd.d/global_common.conf", real.etc / "drbd.d")
    with pytest.raises(Refused, match=r"global_common.conf:24: .*'csum-alg'"):
        adopt.propose((), None)


@needs_drbdadm
def test_a_file_that_drbd_would_not_find_under_our_name_is_refused(real: HandMade) -> None:
    (real.etc / "drbd.d/0_test_a.res").rename(real.etc / "drbd.d/mine.res")
    root = real.etc / "drbd.conf"
    root.write_text(root.read_text().replace("*.res", "m*.res"))
    with pytest.raises(Refused, match="would not find test_a"):
        adopt.propose((), None)


@needs_drbdadm
def test_an_absolute_include_is_tried_on_the_copy_too(real: HandMade) -> None:
    root = real.etc / "drbd.conf"
    root.write_text(root.read_text().replace('"drbd.d/', f'"{real.etc}/drbd.d/'))
    proposal = adopt.propose((), None)
    assert proposal is not None
    assert any("c-max-rate" in line for line in proposal.plan), "what drbdadm read is ours"


# -- afterwards ------------------------------------------------------------------------------------


def test_an_invitation_after_it_keeps_the_secret_and_what_is_replicated(
    root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "pair").mkdir()
    pair = Pair(root / "pair", programs, monkeypatch)
    for name, side in pair.sides.items():
        there = "backup" if name == "server" else "server"
        side.config.parent.mkdir()
        with pair.on(name):
            changes = {
                "site.volume_group": "local",
                f"peers.{there}.hostname": there,
                f"peers.{there}.tunnel": "none",
                **config.resource_keys(make.resource(peer=there)),
            }
            side.config.write_text(config.updated(config.initial(Flavour(name)), changes))
            (keys.directory(there) / "drbd.secret").write_text(SECRET + "\n")
    pair.join(pair.invite())
    enrolled(pair)
    for name in pair.sides:
        with pair.on(name):
            site = config.load()
            (there,) = site.peers
            assert keys.make_drbd_secret(there) == SECRET
            assert site.peers[there].tunnel.mode is TunnelMode.NONE
            assert site.resources == {"test_a": make.resource(peer=there)}
