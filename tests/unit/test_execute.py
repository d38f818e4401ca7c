import stat
from pathlib import Path
from typing import get_args

import pytest

from drbd_offsite import journal, protocol
from drbd_offsite.errors import ToolFailed
from drbd_offsite.execute import execute
from drbd_offsite.plan.actions import Action, AskPeer, Note, RemoveFile, Run, WriteFile

from . import make
from .conftest import Answer, Programs

SITE = make.site()
REQUEST = protocol.Replicate("test_a", 1, protocol.Half.of(make.replica()), overwrite_metadata=False, only_check=False)


def test_a_program_is_run_with_its_words(programs: Programs) -> None:
    programs.allow(("drbdadm", "attach", "test_a"))
    assert execute(Run(("drbdadm", "attach", "test_a"), "why"), SITE) is None
    assert programs.ran == [("drbdadm", "attach", "test_a")]


def test_a_program_that_fails_is_an_error(programs: Programs) -> None:
    programs.allow(("false",), Answer("", 1, "because"))
    with pytest.raises(ToolFailed, match="because"):
        execute(Run(("false",), "why"), SITE)


def test_a_file_is_written_with_its_directories_and_taken_away(root: Path) -> None:
    path = root / "etc/systemd/system/x.service.d/y.conf"
    execute(WriteFile("/etc/systemd/system/x.service.d/y.conf", "text\n", 0o600, "why"), SITE)
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    execute(RemoveFile("/etc/systemd/system/x.service.d/y.conf", "why"), SITE)
    assert not path.exists()


def test_the_peer_is_asked_and_its_answer_returned(programs: Programs) -> None:
    answer = protocol.Replicated(protocol.Half.of(make.replica(4)), 5)
    programs.machine = lambda argv, _: Answer(protocol.encode_answer(answer)) if argv[0] == "ssh" else None
    assert execute(AskPeer("backup", REQUEST, "why"), SITE) == answer
    assert protocol.decode_request(programs.inputs[0]) == REQUEST


def test_a_note_is_on_disk() -> None:
    begun = journal.begin("add", "test_a", {"peer": "backup", "metadata_created": False})
    execute(Note(begun, "metadata_created", True, "why"), SITE)
    assert journal.operations()["add-test_a"].parameters == {"peer": "backup", "metadata_created": True}


def test_every_kind_of_action_can_be_carried_out() -> None:
    import inspect

    source = inspect.getsource(execute)
    assert all(f"case {kind.__name__}(" in source for kind in get_args(Action))
