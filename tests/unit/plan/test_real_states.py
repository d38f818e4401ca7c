"""What is decided and said in states that real machines were in (tests/data/drbd/8.4.11)."""

from pathlib import Path

import pytest

from drbd_offsite.model import Flavour
from drbd_offsite.observed import Forbidden, Host
from drbd_offsite.plan.assess import Level, assess
from drbd_offsite.plan.circle import decide
from drbd_offsite.tools import drbd

from .. import make
from .test_circle import HEARD, commands

DATA = Path(__file__).parents[2] / "data/drbd/8.4.11"
ATTACH, CONNECT = "attach", "connect"
STATES = {
    "up-to-date-server": ([], Level.OK, "Both copies are up to date"),
    "up-to-date-backup": ([], Level.OK, "Both copies are up to date"),
    "first-sync-server": ([], Level.CATCHING_UP, "Syncing: 248.0 MiB left, 5 % done, 2.0 MiB/s, about 2 min to go."),
    "first-sync-backup": ([], Level.CATCHING_UP, "Syncing"),
    "paused-sync-server": ([], Level.CATCHING_UP, "The sync waits"),
    "verify-server": ([], Level.CATCHING_UP, "Both copies are being compared"),
    "ahead-server": ([], Level.CATCHING_UP, "too slow for what is being written"),
    "link-cut-server": ([], Level.UNPROTECTED, "Waiting for backup (Connecting)."),
    "link-cut-backup": ([], Level.UNPROTECTED, "Waiting for server (Connecting)."),
    "tunnel-stopped-server": ([], Level.UNPROTECTED, "Waiting for backup"),
    "tunnel-stopped-backup": ([CONNECT], Level.UNPROTECTED, "Not connected, and not trying to"),
    "detached-server": ([ATTACH], Level.BROKEN, "The copy here is detached from its volume (Diskless)."),
    "down-server": (["new-resource", "new-minor", ATTACH, "primary", CONNECT], Level.BROKEN, "not up"),
    "down-backup": (["new-resource", "new-minor", ATTACH, CONNECT], Level.BROKEN, "not up"),
}


def host(state: str, **changes: object) -> Host:
    flavour = Flavour(state.rpartition("-")[2])
    seen = drbd.parse_events((DATA / f"{state}.events2").read_text().splitlines())
    proc = drbd.parse_proc((DATA / f"{state}.proc").read_text())
    progress = {minor: device.progress for minor, device in proc.devices.items() if device.progress}
    return make.host(flavour, seen.values(), drbd_version=proc.version, progress=progress, **changes)


def look(state: str, **changes: object) -> tuple[list[str], Level, tuple[str, ...]]:
    """The steps that are left once the peer had its time to speak, how bad it is, and what is said."""
    site = make.site(Flavour(state.rpartition("-")[2]))
    seen = host(state, **{"consulted": HEARD} | changes)
    found = assess(site, seen, site.resources["test_a"])
    return commands(decide(site, seen, site.resources["test_a"])), found.level, found.sentences


@pytest.mark.parametrize("state", STATES)
def test_a_real_state_is_told_and_mended(state: str) -> None:
    steps, level, words = STATES[state]
    found_steps, found_level, sentences = look(state)
    assert found_steps == steps
    assert found_level is level
    assert any(words in sentence for sentence in sentences)


@pytest.mark.parametrize("machine", Flavour)
def test_a_split_brain_is_left_alone_while_the_handler_s_hold_lasts(machine: Flavour) -> None:
    steps, level, sentences = look(
        f"split-brain-{machine}", holds=make.hold(Forbidden.CONNECT, set_by="split-brain", reason="both have changes")
    )
    assert (steps, level) == ([], Level.BROKEN)
    assert "Both have changes" in sentences[0]


@pytest.mark.parametrize("machine", Flavour)
def test_a_connection_that_a_person_ended_is_left_alone_and_no_fault(machine: Flavour) -> None:
    state = f"tunnel-stopped-{machine}"
    steps, level, sentences = look(state, holds=make.hold(Forbidden.CONNECT, set_by="disconnect"))
    assert (steps, level) == ([], Level.HELD)
    assert "Somebody said so" in sentences[0]


def test_a_tunnel_that_is_not_there_yet_is_waited_for() -> None:
    assert look("tunnel-stopped-backup", tunnel=False)[0] == []
    assert look("down-server", tunnel=False)[0] == ["new-resource", "new-minor", ATTACH, "primary"]


def test_a_server_that_was_down_asks_before_it_serves() -> None:
    assert look("down-server", consulted={})[0] == ["new-resource", "new-minor", ATTACH, "consult"]
