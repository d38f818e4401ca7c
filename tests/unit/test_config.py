import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drbd_offsite import config
from drbd_offsite.errors import ConfigError, NotConfigured
from drbd_offsite.model import (
    PRIORITIES,
    TUNABLE,
    Alerts,
    Flavour,
    Hours,
    MetadataPlace,
    TunnelMode,
    Verification,
    VolumeName,
)

from . import make

SECTIONS = ("site", "peers", "resources")
FILE = "drbd-offsite.conf"


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.parse(text, FILE)
    assert raised.value.hint
    return raised.value.message.splitlines()


def changed(**lines: str) -> str:
    """The usual file with other values: ``flavour="judge"``."""
    text = make.CONFIG
    for key, value in lines.items():
        text, count = re.subn(rf"(?m)^( *{key} = ).*$", lambda match, value=value: match[1] + value, text)
        assert count == 1, key
    return text


def test_a_whole_file_says_what_the_site_is() -> None:
    site = config.parse(make.CONFIG)
    assert site == make.site()
    assert config.parse(config.updated(make.CONFIG, {"site.battery_backed_cache": "yes"})).battery_backed_cache


def test_a_file_that_is_not_there_means_not_configured() -> None:
    with pytest.raises(NotConfigured) as raised:
        config.load()
    assert "dpkg-reconfigure" in raised.value.hint


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"[site]\n\xff\n")
    for path in (tmp_path, tmp_path / "x"):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            config.load(path)


@pytest.mark.parametrize(
    ("key", "value", "found", "allowed"),
    [
        ("flavour", "judge", "[site] flavour = judge", "one of server, backup"),
        ("volume_group", "a/b", "[site] volume_group = a/b", "a name that LVM takes: letters, digits and + _ . -"),
        ("link_speed", "0", "[peers] [[backup]] link_speed = 0", "a whole number from 1 to 100000"),
        ("link_speed", "fast", "[peers] [[backup]] link_speed = fast", "a whole number from 1 to 100000"),
        ("reachable_as", "a b", "[peers] [[backup]] reachable_as = a b", "a host name or an IP address"),
        ("reachable_as", "a, b", "[peers] [[backup]] reachable_as = a, b", "a host name or an IP address"),
        ("hostname", "back_up", "[peers] [[backup]] hostname = back_up", "a host name"),
        ("port", "65536", "[resources] [[test_a]] port = 65536", "a whole number from 1 to 65535"),
        ("minor", "-1", "[resources] [[test_a]] minor = -1", "a whole number from 0 to 1048575"),
        ("volume", "test_a", "[resources] [[test_a]] volume = test_a", "a logical volume as GROUP/NAME"),
        ("metadata", "x", "[resources] [[test_a]] metadata = x", "a metadata place as GROUP/NAME[SLOT] or GROUP/NAME"),
    ],
)
def test_a_bad_value_is_reported_with_file_section_key_found_and_allowed(
    key: str, value: str, found: str, allowed: str
) -> None:
    assert faults(changed(**{key: value})) == [f"{FILE}: {found}: not {allowed}"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("  alert_address = a b", "[site] alert_address = a b: not a mail address or a local user's name"),
        ("  battery_backed_cache = maybe", "[site] battery_backed_cache = maybe: not yes or no"),
        ("  service_port = 0", "[site] service_port = 0: not a whole number from 1 to 65535"),
        ("  unprotected_minutes = 0", "[site] unprotected_minutes = 0: not a whole number from 1 to 525600"),
        ("  age_minutes = -1", "[site] age_minutes = -1: not a whole number from 0 to 525600"),
        ("  remind_hours = never", "[site] remind_hours = never: not a whole number from 1 to 8760"),
        ("  silence_hours = -1", "[site] silence_hours = -1: not a whole number from 1 to 8760"),
        ("  resync_snapshot = maybe", "[site] resync_snapshot = maybe: not one of require, prefer, never"),
        ("  drill_days = -1", "[site] drill_days = -1: not a whole number from 0 to 3650"),
        ("  drill_minutes = 0", "[site] drill_minutes = 0: not a whole number from 1 to 10080"),
        ("  boot_wait = -1", '[site] boot_wait = -1: not a whole number of seconds, or "forever"'),
        ("  boot_wait = 1.5", '[site] boot_wait = 1.5: not a whole number of seconds, or "forever"'),
        ("  boot_wait = inf", '[site] boot_wait = inf: not a whole number of seconds, or "forever"'),
        ("  boot_wait = nan", '[site] boot_wait = nan: not a whole number of seconds, or "forever"'),
        ("  boot_wait =", '[site] boot_wait = : not a whole number of seconds, or "forever"'),
        ("  boot_wait = 1, 2", '[site] boot_wait = 1, 2: not a whole number of seconds, or "forever"'),
        ("  metadata_volume =", "[site] metadata_volume: empty (allowed: " + config._WORDS["lvm_name"] + ")"),
    ],
)  # fmt: skip
def test_a_bad_value_of_the_site_is_reported(line: str, found: str) -> None:
    assert faults(make.CONFIG.replace("  flavour = server", f"  flavour = server\n{line}")) == [f"{FILE}: {found}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('""', ()),
        ("check", ("check",)),
        ("""'check "a b" $HOME; reboot'""", ("check", "a b", "$HOME;", "reboot")),
        ("""'check a,b'""", ("check", "a,b")),
    ],
)
def test_a_command_is_words(text: str, words: tuple[str, ...]) -> None:
    site = config.parse(make.CONFIG + f"    drill_command = {text}\n")
    assert site.resources["test_a"].drill_command == words


@pytest.mark.parametrize("text", ["check a, b", """'check "a'"""])
def test_a_command_that_is_none(text: str) -> None:
    (fault,) = faults(make.CONFIG + f"    drill_command = {text}\n")
    assert fault.endswith(": not " + config.allowed("command(default='')"))
    assert "a program and its arguments" in fault


def test_the_server_has_no_say_in_what_the_backup_runs() -> None:
    """What the peer may have set is what is TUNABLE."""
    assert "drill_command" not in TUNABLE


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("20", 20.0), ("86400", 86400.0), ("forever", math.inf)])
def test_a_server_asks_its_peer_for_so_long_or_for_ever(text: str, seconds: float) -> None:
    site = config.parse(make.CONFIG.replace("  flavour = server", f"  flavour = server\n  boot_wait = {text}"))
    assert site.boot_wait == seconds


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("tunnel", "ipsec", "one of openvpn, wireguard, static-key, none"),
        ("dials", "both", "one of backup, server"),
        ("device", "0tun", "the name of a network interface, at most 15 characters"),
        ("device", "a" * 16, "the name of a network interface, at most 15 characters"),
        ("server_address", "10.89.33", "an IPv4 address"),
        ("backup_address", "fe80::1", "an IPv4 address"),
        ("fingerprint", "AB:CD", "32 hexadecimal pairs with colons, or a WireGuard public key"),
    ],
)
def test_a_bad_value_of_the_tunnel_is_reported(key: str, value: str, allowed: str) -> None:
    text = make.CONFIG.replace("    link_speed = 100", f"    link_speed = 100\n    {key} = {value}")
    assert faults(text) == [f"{FILE}: [peers] [[backup]] {key} = {value}: not {allowed}"]


def test_every_fault_is_reported_at_once() -> None:
    found = faults(changed(flavour="judge", link_speed="0", minor="-1"))
    assert len(found) == 3


@pytest.mark.parametrize("key", ["peer", "peer_volume", "peer_metadata", "peer_minor", "peer_port", "volume", "minor"])
def test_a_missing_key_is_reported_with_what_is_allowed(key: str) -> None:
    text = re.sub(rf"(?m)^    {key} = .*\n", "", make.CONFIG)
    (fault,) = faults(text)
    assert fault.startswith(f"{FILE}: [resources] [[test_a]] {key}: missing (allowed: ")


def test_the_volume_group_has_to_be_given() -> None:
    (fault,) = faults(changed(volume_group=""))
    assert "[site] volume_group: missing" in fault


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("  flavour", "  flavor = x\n  flavour", "[site] flavor"),
        ("    hostname", "    host_name = x\n    hostname", "[peers] [[backup]] host_name"),
        ("    peer =", "    speed = 1\n    peer =", "[resources] [[test_a]] speed"),
        ("[peers]", "[tunnels]\n[peers]", "tunnels"),
    ],
)
def test_a_mistyped_key_or_section_is_reported(old: str, new: str, found: str) -> None:
    assert faults(make.CONFIG.replace(old, new, 1)) == [f"{FILE}: {found}: there is no such key or section"]


@pytest.mark.parametrize("text", ["[site]\nnonsense\n", "[site\n", "[site]\n[[[deep]]]\n", "[site]\na = 1\na = 2\n"])
def test_what_is_no_configuration_file_at_all_is_reported_with_its_line(text: str) -> None:
    assert "line" in "\n".join(faults(text))


SECOND = make.CONFIG.partition("[[test_a]]")[2].replace("test_a", "test_b").replace("[0]", "[1]")
SECOND = SECOND.replace("minor = 0", "minor = 1").replace("port = 7789", "port = 7790")


def two(**lines: str) -> str:
    """The usual file with a second resource, some of whose values are another's."""
    second = SECOND
    for key, value in lines.items():
        second, count = re.subn(rf"(?m)^    {key} = .*$", f"    {key} = {value}", second)
        assert count == 1
    return make.CONFIG + "  [[test_b]]" + second


def test_two_resources_side_by_side_are_fine() -> None:
    assert list(config.parse(two()).resources) == ["test_a", "test_b"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("minor", "0"), ("port", "7789"), ("volume", "local/test_a"), ("volume", "/dev/local/test_a"),
     ("metadata", "local/drbd_meta[0]")],
)  # fmt: skip
def test_two_resources_cannot_share_what_is_there_once(key: str, value: str) -> None:
    (fault,) = faults(two(**{key: value}))
    assert f"[resources] [[test_b]] {key} = " in fault
    assert "[[test_a]] has the same" in fault


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (changed(peer="elsewhere"), "[resources] [[test_a]] peer = elsewhere: there is no such section in [peers]"),
        (make.CONFIG.replace("[[test_a]]", "[[te st]]"), "[resources] [[te st]]: not a name for a resource"),
        (make.CONFIG.replace("backup]]", "b/c]]").replace("peer = backup", "peer = b/c"), "not a name for a peer"),
        (
            make.CONFIG.replace("hostname = backup", "hostname = backup\n    server_address = 10.89.33.2"),
            "[peers] [[backup]] server_address and backup_address are the same",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_reported(text: str, found: str) -> None:
    assert any(found in fault for fault in faults(text))


def test_two_peers_cannot_share_an_interface() -> None:
    other = "  [[second]]\n    server_address = 10.89.34.1\n    backup_address = 10.89.34.2\n\n[resources]"
    assert any("device = tun0" in fault for fault in faults(make.CONFIG.replace("[resources]", other)))


@pytest.mark.parametrize("flavour", Flavour)
def test_a_new_file_needs_only_its_volume_group(flavour: Flavour) -> None:
    text = config.initial(flavour)
    assert len(faults(text)) == 1
    site = config.parse(config.updated(text, {"site.volume_group": "local"}))
    assert site.flavour is flavour
    assert list(site.peers) == (["backup"] if flavour is Flavour.SERVER else [])
    assert site.alert_address == "root"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_the_configspec_has_a_comment_and_words_for_what_is_allowed(section: str) -> None:
    explained = ""
    for name, comment, check in config.keys(section):
        # Two ends of one thing share a comment: volume and peer_volume, server_address and backup_address.
        assert comment or name.rpartition("_")[2] == explained.rpartition("_")[2], name
        explained = name
        assert config.allowed(check) != "a text" or check == "string", name


def test_a_default_is_valid_itself() -> None:
    defaults = {f"site.{name}": config.default_of(check) for name, _, check in config.keys("site")}
    defaults |= {f"peers.backup.{name}": config.default_of(check) for name, _, check in config.keys("peers")}
    changes = {name: value for name, value in defaults.items() if value is not None}
    site = config.parse(config.updated("", changes | {"site.flavour": "server", "site.volume_group": "local"}))
    assert site.peers["backup"].tunnel.mode is TunnelMode.OPENVPN


EDITED = """\
# top
[site]   # the machine
flavour=server   # inline
   # a thought
volume_group = 'local'

[peers]
# whom we know
[[backup]]
  hostname   =  backup

[resources]
# the end
"""


@pytest.mark.parametrize("text", [EDITED, make.CONFIG, config.initial(Flavour.BACKUP), "", "[site]", "x = 1\n\n\n"])
def test_answers_that_change_nothing_change_no_byte(text: str) -> None:
    assert config.updated(text, {}) == text
    written = config.updated(text, {"site.flavour": "server"})
    assert config.updated(written, {"site.flavour": "server"}) == written


def test_the_same_answers_again_change_no_byte_of_an_admin_s_file() -> None:
    answers = {"site.flavour": "server", "site.volume_group": "local", "peers.backup.hostname": "backup"}
    assert config.updated(EDITED, answers) == EDITED


def test_comments_and_order_survive_a_change() -> None:
    after = config.updated(EDITED, {"peers.backup.port": "1195", "site.volume_group": "other"})
    parts = [
        "# top", "[site]", "# the machine", "flavour", "# inline", "# a thought", "volume_group", "[peers]",
        "# whom we know", "[[backup]]", "hostname", "port = 1195", "[resources]", "# the end",
    ]  # fmt: skip
    places = [after.index(part) for part in parts]
    assert places == sorted(places)
    assert "\n\n[peers]" in after, "empty lines stay too"


def test_a_line_that_is_not_changed_stays_as_it_is_in_a_file_of_ours() -> None:
    before = config.updated(config.initial(Flavour.SERVER), {"site.volume_group": "local"})
    after = config.updated(before, {"peers.backup.link_speed": "50"})
    differing = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert differing == [("    link_speed = 100", "    link_speed = 50")]


def test_none_takes_a_key_or_a_section_away() -> None:
    text = config.updated(make.CONFIG, {"peers.backup.link_speed": None, "resources.test_a": None})
    assert "link_speed" not in text
    assert config.parse(text).resources == {}
    assert config.updated(text, {"resources.test_a": None, "peers.nobody.port": None, "site.nothing": None}) == text


def test_a_peer_with_dots_in_its_name_can_be_written() -> None:
    text = config.updated(make.CONFIG, {"peers.b.example.org.hostname": "b", "peers.b.example.org.device": "tun1"})
    assert config.parse(text).peers["b.example.org"].hostname == "b"


def test_a_resource_reads_as_it_is_written() -> None:
    large = make.resource("large-one.x", 3)
    text = config.updated(make.CONFIG, config.resource_keys(large))
    assert config.parse(text).resources["large-one.x"] == large
    assert config.parse(text).resources["test_a"] == make.resource()


def test_a_resource_with_dots_in_its_name_can_be_taken_away_and_no_other() -> None:
    for name in ("large-one.x", "test_a.minor"):
        text = config.updated(make.CONFIG, config.resource_keys(make.resource(name, 3)))
        without = config.parse(config.updated(text, {f"resources.{name}": None}))
        assert without.resources == {"test_a": make.resource()}


def test_what_can_be_set_reads_as_it_is_written_and_is_written_only_where_it_is_not_the_default() -> None:
    first = replace(make.resource("first", 3), priority=1, resync_rate=500, alerts=Alerts.FAULTS)
    text = config.updated(make.CONFIG, config.resource_keys(first))
    assert config.parse(text).resources["first"] == first
    assert all(f"{key} = " in text for key in TUNABLE)
    assert not any(key.rpartition(".")[2] in TUNABLE for key in config.resource_keys(make.resource()))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("resync_rate", "249", "0, or a whole number from 250 to 4194304"),
        ("resync_rate", "4194305", "0, or a whole number from 250 to 4194304"),
        ("resync_rate", "1M", "0, or a whole number from 250 to 4194304"),
        ("alerts", "some", "one of all, faults, none"),
    ],
)
def test_a_rate_that_drbd_would_refuse_and_alerts_that_there_are_not_are_faults(
    key: str, value: str, allowed: str
) -> None:
    text = config.updated(make.CONFIG, {f"resources.test_a.{key}": value})
    assert faults(text) == [f"{FILE}: [resources] [[test_a]] {key} = {value}: not {allowed}"]


def test_a_priority_reads_as_it_is_written_and_is_written_only_where_it_is_one() -> None:
    for priority in (PRIORITIES[0], -1, 1, PRIORITIES[-1]):
        first = replace(make.resource("first", 3), priority=priority)
        assert config.parse(config.updated(make.CONFIG, config.resource_keys(first))).resources["first"] == first
    assert config.parse(make.CONFIG).resources["test_a"].priority == 0
    assert not any("priority" in key for key in config.resource_keys(make.resource()))
    for wrong in ("-101", "101", "high"):
        text = config.updated(make.CONFIG, {"resources.test_a.priority": wrong})
        place = f"{FILE}: [resources] [[test_a]] priority = {wrong}"
        assert faults(text) == [f"{place}: not a whole number from -100 to 100"]


def test_metadata_without_an_index_reads_as_it_is_written() -> None:
    text = config.updated(make.CONFIG, {"resources.test_a.metadata": "local/test_a_drbd_meta"})
    place = config.parse(text).resources["test_a"].here.metadata
    assert place == MetadataPlace(VolumeName("local", "test_a_drbd_meta"), None)


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30))
@example("'''\"\"\"")
@example("a, b # c")
@example("%(x)s $x")
def test_any_answer_is_written_so_that_it_is_read_back_or_refused(value: str) -> None:
    try:
        text = config.updated(make.CONFIG, {"peers.backup.reachable_as": value})
        site = config.parse(text)
    except ConfigError:
        return
    assert site.peers["backup"].tunnel.reachable_as == value


PIECES = st.sampled_from(
    ["[site]", "[[x]]", "[peers]", "[[backup]]", "[resources]", "[[[a]]]", "flavour = server", "volume_group = v",
     "port", "= 1", "a = 1, 2", "a = 'x", 'b = """', "]", "#", "peers = 1", "site = x", "[[flavour]]", "\u2028", "\x0c",
     "\ufeff", "hostname = $(x)", "minor = 99999999999999999999", "link_speed = \u0663", "link_speed = 1_0"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=12), max_size=12).map("\n".join))
def test_any_text_is_a_site_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        config.parse(text, FILE)


@given(
    st.dictionaries(
        st.sampled_from(["site.flavour", "site.alert_address", "peers.backup.port", "peers.x.y", "resources.r.minor"]),
        st.none() | st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20),
        max_size=3,
    )
)
def test_any_change_gives_a_text_or_a_config_error(changes: dict[str, str | None]) -> None:
    try:
        text = config.updated(EDITED, changes)
    except ConfigError:
        return
    assert config.updated(text, changes) == text


@pytest.mark.parametrize(
    "marker", ["  [[backup]]", "[[ backup ]]  # ours", '\t[["backup"]]', "[ [backup] ]", "  [['backup']]#x"]
)
def test_a_resource_has_another_name_and_all_else_stays(marker: str) -> None:
    """Also a peer of the old name."""
    text = make.CONFIG.replace("  [[test_a]]", f"  # keep it small\n{marker}")
    after = config.renamed(text, "backup", "test-b.2")
    assert after == text.replace(f"small\n{marker}", f"small\n{marker}".replace("backup", "test-b.2"))
    (was,), (now,) = (config.parse(each).resources.values() for each in (text, after))
    assert now == replace(was, name="test-b.2")


def test_what_is_no_resource_of_that_name_is_left_alone() -> None:
    assert config.renamed(make.CONFIG, "backup", "x") == make.CONFIG
    text = "[test_a]\n[[test_a]]\n[resources]\n[[[test_a]]]\n[[test_a2]]\n"
    assert config.renamed(text, "test_a", "x") == text


def test_a_schedule_is_read_in_its_order_and_one_that_cannot_be_meant_is_refused() -> None:
    site = config.parse(make.CONFIG + "\n[schedule]\n  mon-fri 08:00-18:00 = 30\n  mon-sun 00:00-24:00 = 80\n")
    assert [share for _, share in site.schedule] == [30, 80]
    for line in ("mon-fri 8-18 = 30", "mon-fri 08:00-18:00 = 0", "mon-fri 08:00-18:00 = half"):
        with pytest.raises(ConfigError, match=r"\[schedule\]"):
            config.parse(f"{make.CONFIG}\n[schedule]\n  {line}\n")


def test_volumes_are_compared_each_night_unless_the_file_says_otherwise() -> None:
    assert config.parse(make.CONFIG).verify == Verification(30, Hours.parse("mon-sun 01:00-05:00"), 20)
    for hours in ("sat,sun 00:00-24:00", '"sat,sun 00:00-24:00"'):
        site = config.parse(f"{make.CONFIG}\n[verify]\n  days = 0\n  hours = {hours}\n  rate = 100\n")
        assert site.verify == Verification(0, Hours.parse("sat,sun 00:00-24:00"), 100)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("days = -1", "a whole number from 0 to 3650"),
        ("rate = 0", "a whole number from 1 to 4096"),
        ("rate = 4097", "a whole number from 1 to 4096"),
        ("hours = at night", "a part of the week (mon-fri 08:00-18:00, sat,sun 00:00-24:00)"),
        ("hours = sat, some day", "a part of the week (mon-fri 08:00-18:00, sat,sun 00:00-24:00)"),
    ],
)
def test_what_is_no_way_to_compare_volumes_is_reported(line: str, allowed: str) -> None:
    assert faults(f"{make.CONFIG}\n[verify]\n  {line}\n") == [f"{FILE}: [verify] {line}: not {allowed}"]
