"""What of a machine that was set up by hand is taken over, and what is not and why."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drbd_offsite import config
from drbd_offsite.errors import ConfigError, Refused, UsageError
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.observed import ConnectionState, DrbdConnection, Role
from drbd_offsite.plan.adopt import Adoption, decide
from drbd_offsite.plan.adopt_found import Found
from drbd_offsite.render import HEADER
from drbd_offsite.tools import drbd_dump, openvpn
from drbd_offsite.tools.drbd_dump import DumpedResource

from .. import make

DATA = Path(__file__).parents[2] / "data/adopt"
SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
SECRET = "some-shared-secret-of-your-choice"
DUMP = drbd_dump.parse((DATA / "howto.xml").read_text())["test_a"]
NOT_ADOPTABLE = drbd_dump.parse((DATA / "not-adoptable.xml").read_text())
HERE = DUMP.halves[0].volumes[0]
ADDRESSES = {SERVER: "10.89.33.1", BACKUP: "10.89.33.2"}


def numbered(number: int, name: str = "", **changes: Any) -> DumpedResource:
    """Another resource of the how-to's kind."""
    name = name or f"test_{'abc'[number]}"
    halves = tuple(
        replace(
            half,
            port=7789 + number,
            volumes=(drbd_dump.Volume(0, number, f"/dev/local/{name}", f"/dev/local/drbd_meta[{number}]"),),
        )
        for half in DUMP.halves
    )
    return replace(DUMP, name=name, halves=halves, **changes)


def found(*dumped: DumpedResource, here: Flavour = SERVER, **changes: Any) -> Found:
    """A machine of the how-to with these resources, each up and in a file of its own."""
    dumped = dumped or (DUMP,)
    dumped = tuple(replace(one, file=f"/etc/drbd.d/{number}_{one.name}.res") for number, one in enumerate(dumped))
    role = Role.PRIMARY if here is SERVER else Role.SECONDARY
    usual = Found(
        hostname=here,
        config=None,
        dump={one.name: one for one in dumped},
        files={one.file: by_hand(one.name) for one in dumped},
        running={one.name: make.seen(one.name, role) for one in dumped},
        attached={one.name: half.volumes for one in dumped if (half := one.half_of(here))},
        identities={},
        fstab="",
        volumes={VolumeName("local", name) for name in ("drbd_meta", *(one.name for one in dumped))},
        addresses={ADDRESSES[here]: "tun0", "192.0.2.1": "eth0"},
        lines={},
        secrets={},
        under_way=frozenset(),
    )
    return replace(usual, **changes)


def by_hand(*names: str) -> str:
    return "".join(f"resource {name} {{\n}}\n" for name in names)


def configured(*resources: str, flavour: Flavour = SERVER, hostname: str = "") -> str:
    """A configuration with resources as `make` has them."""
    changes = {"site.volume_group": "vg", f"peers.{flavour.other}.hostname": hostname or flavour.other}
    for number, name in enumerate(resources):
        changes |= config.resource_keys(make.resource(name, number, flavour.other))
    return config.updated(config.initial(flavour), changes)


def site_of(adoption: Adoption) -> Any:
    return config.parse(adoption.config)


# -- what becomes of the files' words -----------------------------------------------------------------


def test_minors_slots_ports_and_volumes_are_the_ones_of_the_files_on_each_side() -> None:
    there = replace(
        DUMP.halves[1], port=7800, volumes=(drbd_dump.Volume(0, 7, "/dev/mapper/v--g-copy", "/dev/v-g/meta"),)
    )
    resource = decide(found(replace(DUMP, halves=(DUMP.halves[0], there))), (), None).resources[0]
    assert resource.here == make.replica()
    assert (resource.there.minor, resource.there.port) == (7, 7800)
    assert (str(resource.there.volume), str(resource.there.metadata)) == ("v-g/copy", "v-g/meta")


@pytest.mark.parametrize("here", [SERVER, BACKUP])
def test_who_is_primary_says_which_machine_it_is(here: Flavour) -> None:
    adoption = decide(found(here=here), (), None)
    assert adoption.flavour is here
    site = site_of(adoption)
    peer = site.peers[here.other]
    assert (site.address_here(peer), site.address_there(peer)) == (ADDRESSES[here], ADDRESSES[here.other])


def test_two_secondaries_do_not_say_it_and_a_person_has_to() -> None:
    idle = replace(make.seen(role=Role.SECONDARY), connections=())
    with pytest.raises(Refused, match="who is Primary") as raised:
        decide(found(running={"test_a": idle}), (), None)
    assert "--flavour" in raised.value.hint
    assert decide(found(here=BACKUP, running={"test_a": idle}), (), BACKUP).flavour is BACKUP


def test_the_package_that_is_installed_counts_more_than_an_option() -> None:
    with pytest.raises(Refused, match="configured as the server"):
        decide(found(config=configured()), (), BACKUP)
    assert decide(found(config=configured()), (), SERVER).flavour is SERVER


def test_the_metadata_volume_that_has_all_slots_is_the_one_for_what_is_added_later() -> None:
    assert str(site_of(decide(found(DUMP, numbered(1)), (), None)).metadata_pool) == "local/drbd_meta"
    elsewhere = replace(DUMP.halves[0], volumes=(replace(DUMP.halves[0].volumes[0], metadata="/dev/local/own"),))
    volumes = {VolumeName("local", "test_a"), VolumeName("local", "own")}
    adoption = decide(found(replace(DUMP, halves=(elsewhere, DUMP.halves[1])), volumes=volumes), (), None)
    assert "site.metadata_volume" not in adoption.changes
    assert site_of(adoption).volume_group == "local"


def test_metadata_that_fill_their_volume_are_not_taken_for_slots_whatever_the_volume_is_called() -> None:
    """Slot 0 would be where they are: the next add would be given it."""
    whole = replace(DUMP.halves[0], volumes=(replace(HERE, metadata="/dev/local/drbd_meta"),))
    volumes = {VolumeName("local", name) for name in ("test_a", "drbd_meta", "drbd_meta_1")}
    site = site_of(decide(found(replace(DUMP, halves=(whole, DUMP.halves[1])), volumes=volumes), (), None))
    assert str(site.resources["test_a"].here.metadata) == "local/drbd_meta"
    assert str(site.metadata_pool) == "local/drbd_meta_2"


def test_what_other_resources_have_been_given_is_not_changed_for_them() -> None:
    adoption = decide(found(numbered(1), config=configured("test_a"), secrets={"backup": SECRET}), (), None)
    assert not [key for key in adoption.changes if key.startswith("site.")]


@pytest.mark.parametrize(("options", "backed"), [({}, True), ({"md-flushes": "yes"}, False)])
def test_flushes_are_left_out_only_where_the_admin_had_left_out_both(options: dict[str, str], backed: bool) -> None:
    adoption = decide(found(replace(DUMP, options={**DUMP.options, **options})), (), None)
    assert site_of(adoption).battery_backed_cache is backed


def test_a_resource_on_the_port_of_our_requests_moves_our_requests_the_same_way_on_both() -> None:
    halves = tuple(replace(half, port=port) for half, port in zip(DUMP.halves, (7788, 7787), strict=True))
    for here in (SERVER, BACKUP):
        assert site_of(decide(found(replace(DUMP, halves=halves), here=here), (), None)).service_port == 7786


def test_the_resources_are_in_the_same_order_on_both_machines_whatever_their_files_are_called() -> None:
    assert [r.name for r in decide(found(numbered(2), numbered(1), DUMP), (), None).resources] == [
        "test_a",
        "test_b",
        "test_c",
    ]


def test_a_copy_of_a_file_that_drbdadm_does_not_read_is_nobody_s() -> None:
    text = by_hand("test_a")
    copies = {"/etc/drbd.d/0_test_a.bak": text, "/etc/drbd.d/0_test_a.res": text, "/etc/drbd.d/1_test_a.res~": text}
    assert decide(found(files=copies), (), None).files == {"test_a": "/etc/drbd.d/0_test_a.res"}


def test_where_8_3_s_parser_does_not_say_which_file_it_is_only_one_may_be_it() -> None:
    text = by_hand("test_a")
    look = found(dump={"test_a": replace(DUMP, file="")})
    copies = {"/etc/drbd.d/a.bak": text, "/etc/drbd.d/a.res": text}
    assert decide(replace(look, files=copies), (), None).files == {"test_a": "/etc/drbd.d/a.res"}
    refused(replace(look, files={**copies, "/etc/drbd.d/b.res": text}), "no file of its own")


def test_a_volume_may_be_attached_by_another_of_its_paths() -> None:
    mapped = replace(HERE, disk="/dev/mapper/local-test_a", metadata="/dev/mapper/local-drbd_meta[0]")
    assert decide(found(attached={"test_a": (mapped,)}), (), None).resources


@pytest.mark.parametrize("connections", [(), make.seen(state=ConnectionState.STANDALONE).connections])
def test_what_is_not_connected_and_does_not_try_is_named(connections: tuple[DrbdConnection, ...]) -> None:
    running = {"test_a": replace(make.seen(), connections=connections), "test_b": make.seen("test_b")}
    assert decide(found(DUMP, numbered(1), running=running), (), None).standalone == ("test_a",)


def test_what_of_this_machine_is_left_to_drbdadm_is_named() -> None:
    names = ("good", "internal", "elsewhere", "unnamed", "stacked")
    look = found(*(NOT_ADOPTABLE[name] for name in names))
    assert decide(look, ["good"], None).left == ("internal", "unnamed", "stacked")
    assert decide(found(DUMP, numbered(1)), (), None).left == ()


# -- peers --------------------------------------------------------------------------------------------


def test_the_section_that_nobody_is_enrolled_in_is_the_peer_s() -> None:
    text = config.updated(configured(), {"peers.backup.hostname": "", "peers.backup.link_speed": "20"})
    peer = site_of(decide(found(config=text), (), None)).peers["backup"]
    assert (peer.hostname, peer.link_speed, peer.tunnel.mode) == ("backup", 20, "none")


def test_a_backup_s_peer_has_the_name_that_join_will_give_it() -> None:
    halves = (replace(DUMP.halves[0], hostname="srv.example.org"), DUMP.halves[1])
    (name,) = site_of(decide(found(replace(DUMP, halves=halves), here=BACKUP), (), None)).peers
    assert name == "srv"


def test_a_peer_that_is_enrolled_keeps_its_tunnel() -> None:
    text = configured("test_a")
    adoption = decide(found(numbered(1), config=text, secrets={"backup": SECRET}), (), None)
    assert site_of(adoption).peers == config.parse(text).peers


def test_another_line_to_an_enrolled_peer_is_refused() -> None:
    text = config.updated(configured(), {"peers.backup.backup_address": "10.9.9.2"})
    refused(found(config=text), "there is one line to a peer")


def test_several_backups_are_several_peers() -> None:
    other = tuple(
        replace(half, hostname=half.hostname.replace("backup", "second"), address=half.address.replace("33", "44"))
        for half in numbered(1).halves
    )
    look = found(DUMP, replace(numbered(1), halves=other, secret="another"))
    adoption = decide(replace(look, addresses={**look.addresses, "10.89.44.1": "tun1"}), (), None)
    assert [resource.peer for resource in adoption.resources] == ["backup", "second"]
    assert adoption.secrets == {"backup": SECRET, "second": "another"}
    assert [peer.tunnel.device for peer in site_of(adoption).peers.values()] == ["tun0", "tun1"]


def test_the_openvpn_configuration_of_the_line_tells_what_a_tunnel_of_ours_needs_later() -> None:
    setup = openvpn.Setup(remote="backup.example.org", port="5000", near_end="10.89.33.1", far_end="10.89.33.2")
    stranger = replace(setup, near_end="10.89.33.9")
    adoption = decide(found(lines={"/etc/openvpn/a.conf": stranger, "/etc/openvpn/b.conf": setup}), (), None)
    tunnel = site_of(adoption).peers["backup"].tunnel
    assert (tunnel.dials, tunnel.reachable_as, tunnel.port) == (SERVER, "backup.example.org", 5000)
    assert adoption.lines == {"backup": "/etc/openvpn/b.conf"}


# -- refusals -------------------------------------------------------------------------------------------


def refused(look: Found, why: str, names: Iterable[str] = (), flavour: Flavour | None = None) -> Refused:
    with pytest.raises(Refused, match=why) as raised:
        decide(look, list(names), flavour)
    assert raised.value.hint.startswith("Nothing was changed.")
    return raised.value


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("internal", "metadata is internal"),
        ("several-volumes", "2 volumes"),
        ("three-machines", "3 machines"),
        ("partition", "'/dev/sdb1' is not a logical volume"),
        ("elsewhere", 'no section "on server", .* but one, another'),
        ("unnamed", "but floating, floating"),
        ("six", "no IPv4 address"),
        ("stacked", 'no section "on server"'),
        ("line-is-down", "10.89.34.1 is not on this machine"),
    ],
)
def test_what_is_beyond_us_is_refused_with_the_reason_and_the_others_can_be_named(name: str, why: str) -> None:
    both = found(NOT_ADOPTABLE["good"], NOT_ADOPTABLE[name])
    said = refused(both, why)
    assert said.message.startswith(f"{name} cannot be adopted.")
    assert said.hint.endswith("drbd-offsite adopt good")
    assert [resource.name for resource in decide(both, ["good"], None).resources] == ["good"]
    refused(both, why, [name])


def test_every_reason_is_told_at_once() -> None:
    everything = found(*NOT_ADOPTABLE.values())
    assert len(refused(everything, "internal").message.splitlines()) == len(NOT_ADOPTABLE) - 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"addresses": {}}, "10.89.33.1 is not on this machine"),
        ({"volumes": {VolumeName("local", "test_a")}}, "no logical volume local/drbd_meta"),
        ({"running": {}}, "It is not up. Bring it up"),
        ({"files": {"/etc/drbd.d/all.res": by_hand("test_a", "test_b")}}, "no file of its own"),
        ({"files": {}}, "no file of its own"),
        (
            {
                "dump": {"test_a": replace(DUMP, file="/etc/drbd.d/x.res")},
                "files": {"/etc/drbd.d/x.res": by_hand("test_a"), "/etc/drbd.d/0_test_a.res": "# empty"},
            },
            "a file /etc/drbd.d/0_test_a.res already, and it is not that of test_a, which is /etc/drbd.d/x.res",
        ),
        ({"files": {"/etc/drbd.d/0_test_a.res": "common { net { } }\n" + by_hand("test_a")}}, "no file of its own"),
        ({"files": {"/etc/drbd.d/0_test_a.res": by_hand("test_a") + 'include "more.conf";'}}, "no file of its own"),
        ({"attached": {"test_a": (replace(HERE, minor=5),)}}, "What runs is not .* as minor 5; the file has"),
        (
            {"attached": {"test_a": (replace(HERE, disk="/dev/local/old"),)}},
            "What runs is not .* It has /dev/local/old",
        ),
        ({"attached": {"test_a": (replace(HERE, metadata="/dev/local/drbd_meta[1]"),)}}, "What runs is not"),
        ({"attached": {"test_a": (HERE, replace(HERE, number=1, minor=1))}}, "What runs is not"),
        ({"attached": {}}, "What runs is not"),
        ({"attached": {"test_a": (replace(HERE, disk="", metadata=""),)}}, "up without its disk"),
        ({"secrets": {"backup": "another"}}, "is not that of /etc/drbd-offsite/keys/backup/drbd.secret"),
        ({"dump": {"test_a": replace(DUMP, secret="")}}, "no shared-secret"),
        ({"dump": {"test_a": replace(DUMP, secret='a"b')}}, "a quote"),
        ({"dump": {"test_a": replace(DUMP, name="test+a")}}, "other characters"),
        ({"config": config.updated(configured("test_a"), {"resources.test_a.minor": "5"})}, "differs from this one"),
    ],
)
def test_a_machine_that_is_not_ready_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    refused(found(**changes), why)


def test_a_second_secret_with_the_same_peer_is_refused() -> None:
    refused(found(DUMP, numbered(1, secret="another")), "test_b cannot be adopted. Its shared-secret is not that")


def test_a_secret_is_in_no_refusal_and_no_repr() -> None:
    look = found(DUMP, replace(numbered(1), secret="a blank"))
    said = refused(look, "a blank, a quote")
    assert "a blank," in said.message
    assert "'a blank'" not in said.message
    assert SECRET not in repr(look) + repr(decide(look, ["test_a"], None))


@pytest.mark.parametrize(("role", "flavour"), [(Role.SECONDARY, SERVER), (Role.PRIMARY, BACKUP)])
def test_nothing_is_adopted_that_would_change_its_role_by_that(role: Role, flavour: Flavour) -> None:
    look = found(here=flavour, running={"test_a": make.seen(role=role)})
    said = refused(look, f"It is {role} here", flavour=flavour)
    assert "run adopt again" in said.message


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no resource nothing"):
        decide(found(), ["nothing"], None)


def test_two_resources_that_cannot_both_be_ours_are_a_config_error() -> None:
    look = found(DUMP, replace(numbered(1), halves=DUMP.halves))
    with pytest.raises(ConfigError, match="has the same"):
        config.parse(decide(look, (), None).config)


# -- what is ours already ---------------------------------------------------------------------------------


def test_what_add_has_made_is_passed_over() -> None:
    look = found(DUMP, numbered(1), config=configured("test_a"), secrets={"backup": SECRET})
    look = replace(look, files={**look.files, "/etc/drbd.d/0_test_a.res": f"{HEADER}\n{by_hand('test_a')}"})
    assert [resource.name for resource in decide(look, (), None).resources] == ["test_b"]
    begun = replace(look, under_way=frozenset({"test_a"}))
    assert [resource.name for resource in decide(begun, (), None).resources] == ["test_a", "test_b"]
