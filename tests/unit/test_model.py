import copy
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import RESOURCE_NAME, Flavour, Hours, MetadataPlace, VolumeName, Window
from drbd_offsite.observed import ConnectionState, DiskState, Forbidden, Hold, KernelWord, ReplicationState, Role

from . import make

NAMES = st.from_regex(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,20}", fullmatch=True).filter(
    lambda name: name not in (".", "..")
)
WORDS = (Role, DiskState, ConnectionState, ReplicationState)


@pytest.mark.parametrize(
    "text",
    ["local/test_a", "/dev/local/test_a", "/dev/mapper/local-test_a"],
)
def test_a_volume_is_understood_in_every_form_that_lvm_prints(text: str) -> None:
    assert VolumeName.parse(text) == VolumeName("local", "test_a")


@given(NAMES, NAMES)
def test_a_volume_s_names_survive_every_form(group: str, name: str) -> None:
    volume = VolumeName(group, name)
    mapper = f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"
    assert VolumeName.parse(str(volume)) == volume
    assert VolumeName.parse(volume.path) == volume
    # device-mapper's own form cannot be undone where a name of the two ends or begins with a hyphen
    if not group.endswith("-"):
        assert VolumeName.parse(mapper) == volume


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "local", "local/", "/local", "local/test_a/0", "/dev/local", "/dev/sda", "/dev/drbd0", "/dev//x",
        "-local/a", "local/-a", "./a", "local/.", "../a", "local/..", "local/te st", "local/a\n", "local/a;b", "ö/a",
        "/dev/mapper/local", "/dev/mapper/a-b-c", "/dev/disk/by-id/x", "local/$(reboot)",
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a logical volume"):
        VolumeName.parse(text)


@given(st.text())
def test_any_text_is_a_volume_or_a_value_error(text: str) -> None:
    try:
        volume = VolumeName.parse(text)
    except ValueError:
        return
    assert VolumeName.parse(str(volume)) == volume
    assert ".." not in volume.path.split("/")


@given(NAMES, NAMES, st.none() | st.integers(0, 9999))
def test_a_metadata_place_reads_as_it_is_written(group: str, name: str, index: int | None) -> None:
    place = MetadataPlace(VolumeName(group, name), index)
    assert MetadataPlace.parse(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "local", "a/b[", "a/b[]", "a/b[x]", "a/b[-1]", "a/b[0]c", "a/b[0][1]", "a/b[10000]"]
)
def test_what_is_no_metadata_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        MetadataPlace.parse(text)


@pytest.mark.parametrize("words", WORDS)
def test_an_unknown_kernel_word_is_kept_as_it_is_and_equals_none_of_ours(words: type[KernelWord]) -> None:
    strange = words("Frobnicating")
    assert str(strange) == strange.value == f"{strange}" == "Frobnicating"
    assert strange not in list(words)
    assert all(strange is not known and strange != known for known in words)
    assert strange == words("Frobnicating")
    assert strange in {strange: 1}


@given(st.text())
def test_any_text_can_be_a_kernel_word(text: str) -> None:
    assert all(str(words(text)) == text for words in WORDS)


@pytest.mark.parametrize("words", WORDS)
def test_a_known_kernel_word_is_the_enumeration_s_own(words: type[KernelWord]) -> None:
    assert all(words(str(word)) is word for word in words)


@pytest.mark.parametrize("word", [Role("Levitating"), Role.PRIMARY])
def test_a_kernel_word_can_be_copied_and_sent_whether_it_is_known_or_not(word: Role) -> None:
    assert copy.deepcopy(word) is word
    assert json.loads(json.dumps({"role": word})) == {"role": str(word)}


def test_a_sync_that_waits_for_another_is_a_resync_too() -> None:
    assert ReplicationState("PausedSyncT").resyncing
    assert not ReplicationState("Ahead").resyncing
    assert not ReplicationState("Whatever").resyncing


@pytest.mark.parametrize("name", ["test_a", "a", "0", "a.b_c-d", "x" * 63])
def test_resource_names(name: str) -> None:
    assert RESOURCE_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a/b", "..", "a b", "a\n", "ä", "x" * 64, "a;b", "a%i", "a@b"])
def test_names_that_no_file_unit_or_kernel_should_see(name: str) -> None:
    assert not RESOURCE_NAME.fullmatch(name)


def test_each_machine_knows_its_own_end_of_the_tunnel() -> None:
    server, backup = make.site(Flavour.SERVER), make.site(Flavour.BACKUP)
    assert server.address_here(server.peers["backup"]) == backup.address_there(backup.peers["server"]) == "10.89.33.1"
    assert backup.address_here(backup.peers["server"]) == server.address_there(server.peers["backup"]) == "10.89.33.2"


def test_of_several_holds_the_first_that_forbids_a_step_is_the_reason() -> None:
    remark, first, second = (
        Hold("test_a", reason, frozenset(forbids), "", reason)
        for reason, forbids in (
            ("remark", []), ("first", [Forbidden.ATTACH]), ("second", [Forbidden.ATTACH, Forbidden.CONNECT])
        )
    )  # fmt: skip
    host = make.host(holds={"test_a": (remark, first, second)})
    assert host.held("test_a", Forbidden.ATTACH) is first
    assert host.held("test_a", Forbidden.CONNECT) is second
    assert host.held("test_a", Forbidden.PROMOTE) is None
    assert host.held("test_b", Forbidden.ATTACH) is None


def test_a_site_needs_the_volumes_of_its_resources_and_of_their_metadata() -> None:
    site = make.site(resources=("test_a", "test_b"))
    assert {str(volume) for volume in site.volumes} == {"local/test_a", "local/test_b", "local/drbd_meta"}
    assert make.site(resources=()).volumes == frozenset()


def test_a_resource_without_a_device_is_diskless_and_one_without_a_line_has_no_peer() -> None:
    bare = make.seen(state=None)
    assert bare.connection is None
    assert bare.peer_device is None
    assert bare.disk is DiskState.UP_TO_DATE


MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def moment(text: str) -> datetime:
    """``5 02:00``: on Saturday at two."""
    day, hour, minute = map(int, re.split("[ :]", text))
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("mon-fri 08:00-18:00", ["0 08:00", "4 17:59"], ["0 07:59", "0 18:00", "5 12:00"]),
        ("sat,sun 00:00-24:00", ["5 00:00", "6 23:59"], ["0 00:00", "4 23:59"]),
        ("sun 22:00-06:00", ["6 22:00", "0 05:59"], ["0 06:00", "0 22:00", "6 05:00"]),
        ("fri-mon 10:00-11:00", ["4 10:30", "6 10:30", "0 10:30"], ["1 10:30", "3 10:30"]),
    ],
)
def test_a_part_of_the_week_has_its_hours_and_no_others(text: str, inside: list[str], outside: list[str]) -> None:
    hours = Hours.parse(text)
    assert all(moment(at) in hours for at in inside)
    assert not any(moment(at) in hours for at in outside)


@pytest.mark.parametrize(
    ("text", "at", "window"),
    [
        ("mon-sun 01:00-05:00", "0 03:00", ["0 01:00", "0 05:00", "1 01:00"]),
        ("mon-sun 01:00-05:00", "0 05:00", None),
        ("mon 01:00-05:00", "0 01:00", ["0 01:00", "0 05:00", "7 01:00"]),
        ("sat,sun 00:00-24:00", "6 12:00", ["6 00:00", "7 00:00", "12 00:00"]),
        ("mon-sun 00:00-24:00", "2 23:59", ["2 00:00", "3 00:00", "3 00:00"]),
        ("mon-fri 22:00-06:00", "5 02:00", ["4 22:00", "5 06:00", "7 22:00"]),
        ("mon-fri 22:00-06:00", "0 02:00", None),
    ],
)
def test_hours_know_when_they_end_and_when_the_next_begin(text: str, at: str, window: list[str] | None) -> None:
    expected = Window(*map(moment, window)) if window else None
    assert Hours.parse(text).around(moment(at)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "mon", "mon 8:00-18:00", "mon 08:00-08:00", "mon 24:00-08:00", "mon 08:00-24:30", "mon 08:60-09:00",
     "monday 08:00-18:00", "mon-tue-wed 08:00-18:00", "mon,,tue 08:00-18:00", "Mon 08:00-18:00"],
)  # fmt: skip
def test_what_is_no_part_of_the_week_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"week|hours|tuple"):
        Hours.parse(text)
