"""Volumes are compared slice by slice with nobody asking, at a rate of their own; what differs takes the usual path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from . import product
from .stages import REPLICATING
from .test_schedule import A_LOOK, CONFIG, _limit
from .test_verify import A_REPAIR, A_VERIFY, BLOCK, SECTOR, SPOIL, _events, _found, _no_remark, _ranges, _same

if TYPE_CHECKING:
    from .lab import Lab

ALWAYS = f"sed -i 's/^ *days = 0$/days = 1\\nhours = mon-sun 00:00-24:00\\nrate = 1/' {CONFIG}"
"""All of the volume in one slice, of a minute and a half."""


def _round(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = product.resource(lab.server)["verify"]
    return found


def _compared(lab: Lab) -> bool:
    replication: str = product.resource(lab.server)["replication"]
    return replication == "VerifyS"


@pytest.mark.thorough
def test_a_slice_finds_what_differs_and_the_round_comes_to_its_end(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    whole = _limit(server)
    lab.backup.run(SPOIL.format(BLOCK, 1))
    assert not _same(lab)
    server.run(ALWAYS)
    server.wait_for("a slice is being compared", lambda: _compared(lab), 2 * A_LOOK)
    assert _limit(server) == "1024k"
    refused = server.run("drbd-offsite verify test_a", check=False)
    assert "over in a few minutes" in refused.stderr, refused
    assert "other disk options" not in server.run("drbd-offsite doctor", check=False).stdout
    assert "no whole round has ended yet" in server.run("drbd-offsite status", check=False).stdout
    server.wait_for("it was found", lambda: _found(lab), A_VERIFY)
    assert _ranges(_found(lab)[0]) == [(SECTOR, 8)]
    server.wait_for("resyncs have their own limit again", lambda: _limit(server) == whole, A_LOOK)
    server.wait_for("it was repaired", _no_remark(lab), A_REPAIR)
    assert _same(lab)
    server.wait_for("the round is whole", lambda: _events(server, "verify-round"), A_LOOK)
    product.await_up_to_date(lab)
    known = _round(lab)
    assert (known["since"], known["overdue"]) == (None, False)
    assert known["ended"]
    assert "the last whole round ended at" in server.run("drbd-offsite status").stdout
    kinds = {entry["event"] for entry in _events(server, "repair", "repaired", "verify-broken-off", "failed")}
    assert kinds == {"repair", "repaired"}


@pytest.mark.thorough
def test_a_slice_that_loses_its_connection_is_begun_anew(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run(ALWAYS)
    server.wait_for("a slice is being compared", lambda: _compared(lab), 2 * A_LOOK)
    lab.cut_link()
    server.wait_for("it is broken off", lambda: _events(server, "verify-broken-off"), A_REPAIR)
    assert _round(lab)["done_percent"] == 0
    lab.mend_link()
    product.await_tunnel(lab)
    server.wait_for("the round is whole all the same", lambda: _events(server, "verify-round"), A_VERIFY)
    assert not _found(lab)
    product.await_up_to_date(lab)
