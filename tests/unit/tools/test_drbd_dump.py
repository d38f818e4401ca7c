import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.tools import drbd_dump
from drbd_offsite.tools.drbd_dump import Half, OnCongestion, ResyncLimits, Volume

DATA = Path(__file__).parents[2] / "data/adopt"
SECRET = "some-shared-secret-of-your-choice"


def caught(name: str) -> dict[str, drbd_dump.DumpedResource]:
    return drbd_dump.parse((DATA / f"{name}.xml").read_text())


@pytest.mark.parametrize("parser", ["howto", "howto-83"])
def test_both_parsers_of_drbd_utils_say_the_same_of_the_how_to(parser: str) -> None:
    """Which writes 8.3's words: ``syncer``, ``rate``, ``no-disk-flushes``, and ``protocol`` outside of any section."""
    (resource,) = caught(parser).values()
    volume = Volume(0, 0, "/dev/local/test_a", "/dev/local/drbd_meta[0]", "/dev/drbd0")
    assert resource.name == "test_a"
    assert resource.half_of("server") == Half("server", "ipv4", "10.89.33.1", 7789, (volume,))
    assert resource.half_of("backup") == Half("backup", "ipv4", "10.89.33.2", 7789, (volume,))
    assert resource.half_of("another") is None
    assert resource.options == {
        "protocol": "A",
        "cram-hmac-alg": "sha256",
        "sndbuf-size": "10M",
        "disk-flushes": "no",
        "md-flushes": "no",
        "resync-rate": "1M",
        "csums-alg": "md5",
    }
    assert resource.secret == SECRET
    assert resource.handlers == {}


def test_old_words_become_new_ones_and_a_resource_s_own_count_before_the_common_ones() -> None:
    first, second = caught("words-of-8.3-83").values()
    assert first.halves[0].volumes == (Volume(0, 0, "/dev/local/test_a", "/dev/local/test_a_meta", "/dev/drbd0"),)
    assert first.options["resync-after"] == "test_b"
    assert first.options["use-rle"] == "yes"
    assert first.options["tcp-cork"] == "no"
    assert first.handlers == {"fence-peer": "/usr/lib/drbd/outdate-peer.sh"}
    assert (first.options["protocol"], second.options["protocol"]) == ("A", "C")
    assert "become-primary-on" not in first.options, "it is for the init script, not for DRBD"


def test_what_no_how_to_has_is_seen_for_what_it_is() -> None:
    found = caught("not-adoptable")
    assert [volume.minor for volume in found["several-volumes"].halves[0].volumes] == [2, 3]
    assert [half.hostname for half in found["three-machines"].halves] == ["server", "backup", "third"]
    assert [half.hostname for half in found["unnamed"].halves] == ["", ""]
    assert found["stacked"].halves[0].hostname == "server backup"
    assert found["stacked"].halves[0].volumes[0].disk == ""
    assert found["internal"].halves[0].volumes[0].metadata == drbd_dump.INTERNAL
    assert found["six"].halves[0].family == "ipv6"
    assert (found["good"].secret, found["six"].secret) == ("its-own", "a secret with blanks & <signs>")


def test_a_secret_is_not_in_what_an_error_might_show() -> None:
    assert SECRET not in repr(caught("howto"))


def test_a_machine_without_address_or_metadata_as_drbd_9_may_have_it_is_no_error() -> None:
    host = '<host name="a"><volume vnr="0"><device minor="1"/></volume></host>'
    assert drbd_dump.parse(f'<config><resource name="x">{host}</resource></config>')["x"].halves == (
        Half("a", "", "", 0, (Volume(0, 1, "", ""),)),
    )


@pytest.mark.parametrize("text", ["", "no resources defined!", "<config>", "<config><resource/></config>"])
def test_what_is_no_dump_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a dump"):
        drbd_dump.parse(text)


@given(st.text())
def test_anything_at_all_is_a_dump_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        drbd_dump.parse(text)


def test_a_complaint_is_one_line_with_the_place_and_without_our_own_trick() -> None:
    said = drbd_dump.complaint((DATA / "howto-exactly.xml.stderr").read_text())
    assert said.startswith("drbd.d/global_common.conf:24: Parse error:")
    assert said.endswith("but got 'csum-alg'")
    assert "NODE" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ((DATA / "howto/drbd.d/0_test_a.res").read_text(), ("resource test_a",)),
        ((DATA / "adopted/server/0_test_a.res").read_text(), ("resource test_a",)),
        ((DATA / "howto/drbd.d/global_common.conf").read_text(), ("common",)),
        (
            (DATA / "others/words-of-8.3.conf").read_text(),
            ("global", "common", "resource test_a", "resource test_b"),
        ),
        ((DATA / "howto/drbd.conf").read_text(), ("include drbd.d/global_common.conf", "include drbd.d/*.res")),
        ("resource a\n{\n}\n  resource b{}", ("resource a", "resource b")),
        ("# resource a {\nskip resource b {}", ("skip resource b",)),
        ('resource a { net { shared-secret "} x { \\" #"; } } common { }', ("resource a", "common")),
        ("resource a { } #}\nglobal { usage-count no; }", ("resource a", "global")),
    ],
    ids=range(9),
)
def test_what_else_than_a_resource_is_in_a_file(text: str, has: tuple[str, ...]) -> None:
    assert drbd_dump.sections(text) == has


@given(st.text())
def test_anything_at_all_has_sections(text: str) -> None:
    drbd_dump.sections(text)


def test_which_file_defines_a_resource_is_drbdadm_s_own_word_and_8_3_has_none() -> None:
    assert caught("howto")["test_a"].file == "/etc/drbd.d/0_test_a.res"
    assert caught("howto-83")["test_a"].file == ""


# -- what runs ----------------------------------------------------------------------------------


def test_what_the_kernel_runs_is_read_of_every_resource() -> None:
    found = drbd_dump.parse_running((DATA / "show-several.txt").read_text())
    assert found == {
        name: (Volume(0, minor, f"/dev/local/{name}", f"/dev/local/drbd_meta[{minor}]"),)
        for name, minor in {"test_a": 0, "test_c": 2, "test_d": 1}.items()
    }


@pytest.mark.parametrize(
    ("lines", "volume"),
    [
        ("", Volume(0, 7, "", "")),
        ('disk "/dev/vg/a";\nmeta-disk internal;', Volume(0, 7, "/dev/vg/a", "internal")),
        ('disk "/dev/vg/a";\nmeta-disk "/dev/vg/m";', Volume(0, 7, "/dev/vg/a", "/dev/vg/m")),
        ('disk "/dev/vg/a";\nflexible-meta-disk "/dev/vg/m";', Volume(0, 7, "/dev/vg/a", "/dev/vg/m")),
    ],
    ids=["detached", "internal", "without-slots", "without-slots-in-old-words"],
)
def test_every_kind_of_metadata_and_no_disk_at_all_is_told_apart(lines: str, volume: Volume) -> None:
    """In the order of drbdsetup.c, show_scmd."""
    text = f"resource x {{\n  _this_host {{\n    volume 0 {{\n      device minor 7;\n{lines}\n    }}\n  }}\n}}\n"
    assert drbd_dump.parse_running(text) == {"x": (volume,)}


def test_what_limits_a_resync_is_read_of_what_is_attached() -> None:
    usual = ResyncLimits(9155, 1024, 610)
    assert drbd_dump.parse_rates((DATA / "show-several.txt").read_text()) == dict.fromkeys(range(3), usual)


def test_a_limit_that_is_not_shown_is_the_usual_one() -> None:
    text = (DATA / "show.txt").read_text()
    shown = re.sub(r"^\s+c-(max|min)-rate.*\n|^\s+c-fill-target.*\n", "", text, flags=re.MULTILINE)
    assert shown != text
    assert set(drbd_dump.parse_rates(shown).values()) == {ResyncLimits(102400, 250, 50)}


def test_what_happens_when_the_line_is_full_is_read_and_what_is_not_shown_is_the_usual() -> None:
    text = (DATA / "show.txt").read_text()
    assert drbd_dump.parse_on_congestion(text) == {"test_a": OnCongestion("pull-ahead", 6144)}
    shown = re.sub(r"^\s+(on-congestion|congestion-fill).*\n", "", text, flags=re.MULTILINE)
    assert drbd_dump.parse_on_congestion(shown) == {"test_a": OnCongestion("block", 0)}


@given(st.text())
def test_anything_at_all_runs_nothing_that_we_know(text: str) -> None:
    assert isinstance(drbd_dump.parse_running(text), dict)
