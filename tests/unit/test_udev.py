"""What udev announces, from the rule to the watcher, with umockdev and no root."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drbd_offsite import watch

from . import make

ROOT = Path(__file__).parents[2]
RULES = ROOT / "udev/85-drbd-offsite.rules"
CAPTURED = sorted((ROOT / "tests/data/udev").glob("*.txt"))
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Event:
    """As udev announces it before our rule has seen it."""

    subsystem: str
    name: str
    action: str
    properties: dict[str, str] = field(default_factory=dict)
    tagged: bool = False
    resources: tuple[str, ...] = ()


def volume(
    name: str = "test_a", action: str = "change", *, group: str = "local", **properties: str
) -> dict[str, object]:
    """The properties are those of field-notes.md."""
    usual = {
        "DEVNAME": "/dev/dm-0", "DEVTYPE": "disk",
        "DM_VG_NAME": group, "DM_LV_NAME": name, "DM_NAME": f"{group}-{name}",
        "DM_UUID": "LVM-kPIc0GrEn6fT4cO0bBbLwkHnTHcUmF1CWnXo3SEdHsE8rYVNTQq3lNAVDMXr1Zqb", "DM_SUSPENDED": "0",
        "DM_ACTIVATION": "1", "DM_UDEV_PRIMARY_SOURCE_FLAG": "1",
    }  # fmt: skip
    return {"subsystem": "block", "name": "dm-0", "action": action, "properties": usual | properties}


def link(name: str, action: str = "add", **properties: str) -> dict[str, object]:
    return {
        "subsystem": "net", "name": name, "action": action,
        "properties": {"INTERFACE": name, "IFINDEX": "7"} | properties,
    }  # fmt: skip


EVENTS = {
    "a volume that is ready": Event(**volume(), tagged=True, resources=("test_a",)),
    "a volume that was there at boot": Event(**volume(action="add"), tagged=True, resources=("test_a",)),
    "the metadata's": Event(**volume("drbd_meta"), tagged=True, resources=("test_a",)),
    "an unrelated volume": Event(**volume("other"), tagged=True),
    "one of that name in another group": Event(**volume(group="elsewhere"), tagged=True),
    "a volume that lvcreate still wipes": Event(**volume(DM_UDEV_DISABLE_OTHER_RULES_FLAG="1", DM_NOSCAN="1")),
    "a volume that goes": Event(**volume(action="remove")),
    "a device of another kind": Event(**volume(DM_UUID="CRYPT-LUKS2-0123456789abcdef-x")),
    "a disk": Event("block", "vdb", "change", {"DEVNAME": "/dev/vdb", "DEVTYPE": "disk"}),
    "drbd's own device": Event("block", "drbd0", "change", {"DEVNAME": "/dev/drbd0", "DEVTYPE": "disk"}),
    "the tunnel": Event(**link("tun0", ID_NET_DRIVER="tun"), tagged=True, resources=("test_a",)),
    "the tunnel, known by its name alone": Event(**link("tun0"), tagged=True, resources=("test_a",)),
    "another tunnel": Event(**link("wg0", ID_NET_DRIVER="wireguard"), tagged=True),
    "a tunnel with a name of its own": Event(**link("offsite", ID_NET_DRIVER="tun"), tagged=True),
    "a tunnel that changes": Event(**link("tun0", "change", ID_NET_DRIVER="tun")),
    "a tunnel that goes": Event(**link("tun0", "remove", ID_NET_DRIVER="tun")),
    "a network card": Event(**link("enp0s3", ID_NET_DRIVER="virtio_net")),
    "a container's end of a pair": Event(**link("veth1234", ID_NET_DRIVER="veth")),
}
every_event = pytest.mark.parametrize("name", EVENTS)


# -- the rule ----------------------------------------------------------------------------------------

TEST_RULE = """\
mount -t tmpfs none /run && mount --bind "$RULES" /usr/lib/udev/rules.d || exit 77
for device in "$PLACE"/*.umockdev; do
    rm -rf /run/udev
    set -- $(cat "${device%.umockdev}.args")
    umockdev-run --device "$device" -- udevadm test --action="$1" "/sys$2" >"${device%.umockdev}.said" 2>&1
done
"""


def path_of(event: Event) -> str:
    return f"/devices/virtual/{event.subsystem}/{event.name}"


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Whether udev itself tags each event, with our rule file as its only one."""
    if missing := [tool for tool in ("unshare", "umockdev-run", "udevadm") if shutil.which(tool) is None]:
        pytest.skip(f"there is no {missing[0]} here")
    place = tmp_path_factory.mktemp("udev")
    rules = tmp_path_factory.mktemp("rules.d")
    shutil.copy(RULES, rules)
    for number, event in enumerate(EVENTS.values()):
        lines = [f"P: {path_of(event)}", f"E: SUBSYSTEM={event.subsystem}"]
        if node := event.properties.get("DEVNAME"):
            lines.insert(1, f"N: {node.removeprefix('/dev/')}")
        lines += [f"E: {key}={value}" for key, value in event.properties.items()]
        (place / f"{number}.umockdev").write_text("\n".join(lines) + "\n\n")
        (place / f"{number}.args").write_text(f"{event.action} {path_of(event)}\n")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "/bin/sh", "-c", TEST_RULE],
        env={"PATH": SYSTEM_PATH, "PLACE": str(place), "RULES": str(rules)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"udev cannot be shown another rule here: {done.stderr}")
    said = [(place / f"{number}.said").read_text() for number in range(len(EVENTS))]
    assert all("ACTION=" in text for text in said), said
    assert all(f"Reading rules file: /usr/lib/udev/rules.d/{RULES.name}" in text for text in said)
    current = [[line for line in text.splitlines() if line.startswith("CURRENT_TAGS=")] for text in said]
    return {name: f"CURRENT_TAGS=:{watch.TAG}:" in lines for name, lines in zip(EVENTS, current, strict=True)}


@every_event
def test_the_rule_tags_what_can_matter_and_nothing_else(name: str, tags: dict[str, bool]) -> None:
    assert tags[name] is EVENTS[name].tagged


def test_the_rule_only_tags() -> None:
    """It starts nothing and names nothing: an event that matters to nobody costs udev a comparison."""
    lines = [line for line in RULES.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert all(line.endswith(f'TAG+="{watch.TAG}"') for line in lines)
    assert not any(word in line for line in lines for word in ("RUN", "PROGRAM", "IMPORT", "SYMLINK", "NAME=", "GOTO"))


# -- the watcher -------------------------------------------------------------------------------------


def replayed(events: list[Event], tmp_path: Path) -> list[list[str]]:
    """What the watcher takes them for, through pyudev and libudev."""
    if shutil.which("umockdev-wrapper") is None:
        pytest.skip("there is no umockdev here")
    tag = f":{watch.TAG}:"
    sent = [
        {
            "subsystem": event.subsystem, "name": event.name, "action": event.action,
            "properties": event.properties | ({"TAGS": tag, "CURRENT_TAGS": tag} if event.tagged else {}),
        }
        for event in events
    ]  # fmt: skip
    configuration = tmp_path / "drbd-offsite.conf"
    configuration.write_text(make.CONFIG)
    done = subprocess.run(
        ["umockdev-wrapper", sys.executable, "-W", "ignore", str(Path(__file__).with_name("udev_guest.py")),
         str(configuration)],
        input=json.dumps(sent), env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No module named 'gi'" in done.stderr or "Namespace UMockdev not available" in done.stderr:
        pytest.skip("umockdev cannot be used from Python here")
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return dict(zip(EVENTS, replayed(list(EVENTS.values()), tmp_path_factory.mktemp("watcher")), strict=True))


@every_event
def test_the_watcher_looks_at_the_resource_that_waits_for_it_and_at_no_other(
    name: str, heard: dict[str, list[str]]
) -> None:
    assert sorted(heard[name]) == sorted(EVENTS[name].resources)


def test_what_has_no_tag_does_not_reach_the_watcher_at_all(tmp_path: Path) -> None:
    """Or every event of the machine would wake it."""
    untagged = [Event(e.subsystem, e.name, e.action, e.properties) for e in EVENTS.values() if e.resources]
    assert untagged
    assert replayed(untagged, tmp_path) == [[]] * len(untagged)


# -- what real machines announced --------------------------------------------------------------------


def recorded(text: str) -> list[Event]:
    """The output of ``udevadm monitor --udev --property``."""
    events = []
    for block in text.split("\n\n"):
        head, *lines = block.strip().splitlines() or [""]
        if not head.startswith("UDEV "):
            continue
        properties = dict(line.split("=", 1) for line in lines)
        tagged = f":{watch.TAG}:" in properties.pop("CURRENT_TAGS", "")
        properties.pop("TAGS", None)
        ours = {
            key: value for key, value in properties.items() if key not in ("ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM")
        }
        name = properties["DEVPATH"].rpartition("/")[2]
        events.append(Event(properties["SUBSYSTEM"], name, properties["ACTION"], ours, tagged))
    return events


MONITOR = """\
monitor will print the received events for:
UDEV - the event which udev sends out after rule processing

UDEV  [61.525] change   /devices/virtual/block/dm-0 (block)
ACTION=change
DEVPATH=/devices/virtual/block/dm-0
SUBSYSTEM=block
SEQNUM=1421
DM_VG_NAME=local
DM_LV_NAME=test_a
CURRENT_TAGS=:systemd:drbd-offsite:
TAGS=:systemd:drbd-offsite:

UDEV  [62.000] add      /devices/virtual/net/eth7 (net)
ACTION=add
DEVPATH=/devices/virtual/net/eth7
SUBSYSTEM=net
SEQNUM=1422

"""


def test_a_recording_is_read() -> None:
    assert recorded(MONITOR) == [
        Event("block", "dm-0", "change", {"DM_VG_NAME": "local", "DM_LV_NAME": "test_a"}, tagged=True),
        Event("net", "eth7", "add"),
    ]


@pytest.mark.parametrize("path", CAPTURED, ids=[path.stem for path in CAPTURED])
def test_what_a_real_machine_announced_wakes_the_watcher(path: Path, tmp_path: Path) -> None:
    """A volume that is created, one that is activated, a tunnel that comes up: each is a look at test_a."""
    events = recorded(path.read_text())
    found = replayed(events, tmp_path)
    assert ["test_a"] in found
    assert all(names == [] for event, names in zip(events, found, strict=True) if not event.tagged)
