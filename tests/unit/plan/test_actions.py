from typing import get_args

from drbd_offsite.messages import Half, Replicate
from drbd_offsite.observed import Forbidden, Hold
from drbd_offsite.plan.actions import (
    Action,
    AskPeer,
    CarryOver,
    Consult,
    Disconnect,
    Lift,
    Note,
    Once,
    Promote,
    RemoveFile,
    Run,
    Serve,
    SetHold,
    SkipSync,
    WriteFile,
    describe,
)

from .. import make

REQUEST = Replicate("test_a", 1, Half.of(make.replica()), overwrite_metadata=False, only_check=False)
EXAMPLES = {
    "lvcreate x  # why": Run(("lvcreate", "x"), "why"),
    "write /etc/x  # why": WriteFile("/etc/x", make.SECRET, 0o600, "why"),
    "remove /etc/x  # why": RemoveFile("/etc/x", "why"),
    "ask backup to replicate  # why": AskPeer("backup", REQUEST, "why"),
    "ask backup whether it serves test_a  # why": Consult("test_a", "backup", "why"),
    "drbdadm primary test_a  # why": Promote("test_a", "why"),
    "drbdadm disconnect test_a  # why": Disconnect("test_a", "why"),
    "drbdadm new-current-uuid --clear-bitmap test_a/0  # why": SkipSync("test_a", "why"),
    "hold test_a: nothing will connect it by itself  # why": SetHold(
        Hold("test_a", "somebody said so", frozenset({Forbidden.CONNECT}), "", "failover"), "why"
    ),
    "serve test_a from here, also after a reboot  # why": Serve("test_a", "why"),
    "lift the hold of returning on test_a  # why": Lift("test_a", "returning", "why"),
    "carry what is held and remembered of test_a over to b  # why": CarryOver("test_a", "b", ("lost",), "why"),
    "note a = True  # why": Note(make.operation("add", {}), "a", True, "why"),
    "resize2fs x  # why": Once(Run(("resize2fs", "x"), "why"), Note(make.operation("grow", {}), "a", True, "note")),
}


def test_every_kind_of_action_is_one_line_with_its_reason() -> None:
    assert {type(action) for action in EXAMPLES.values()} == set(get_args(Action))
    for line, action in EXAMPLES.items():
        assert describe(action) == line


def test_all_holds_of_a_resource_are_lifted_at_once_where_nobody_is_named() -> None:
    assert describe(Lift("test_a", "", "why")) == "lift the holds on test_a  # why"


def test_the_text_of_a_file_is_in_no_line() -> None:
    assert not any(make.SECRET in describe(action) for action in EXAMPLES.values())
