"""``drbd-offsite.conf``: text to a validated `Site`, and changes to the text that keep the rest.

The configspec beside this module is the only list of keys, types, ranges and defaults; the manual
page and a new file's comments are made from it too.
"""

import functools
import ipaddress
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, flatten_errors, get_extra_values
from validate import Validator, VdtMissingValue, VdtValueError

from .contradictions import HOST, LVM_NAME, contradictions
from .errors import ConfigError, NotConfigured
from .model import (
    RESYNC_RATES,
    TUNABLE,
    Alerts,
    Congestion,
    Flavour,
    Hours,
    MetadataPlace,
    Peer,
    Replica,
    Resource,
    RestorePoint,
    Site,
    Tunnel,
    TunnelMode,
    Verification,
    VolumeName,
)

PATH = Path("/etc/drbd-offsite/drbd-offsite.conf")

HEADER = """\
# drbd-offsite.conf(5): what this machine is and what it replicates. Safe to edit by hand; run
# "drbd-offsite render" afterwards. The package's questions only fill in what is asked for here.
"""


def load(path: Path = PATH) -> Site:
    """The site that a file describes.

    Raises NotConfigured where there is no file, ConfigError with every fault that was found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotConfigured(
            "drbd-offsite is not configured yet, so nothing is replicated.",
            "Answer its questions: dpkg-reconfigure drbd-offsite-server (or -backup).",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    return parse(text, str(path))


def parse(text: str, source: str = str(PATH)) -> Site:
    """The site that ``text`` describes; ``source`` names it in errors (ConfigError)."""
    document = _document(text, source)
    faults = list(_faults(document))
    if not faults:
        site = _site(document)
        faults = list(contradictions(site))
    if faults:
        raise ConfigError(
            "\n".join(f"{source}: {fault}" for fault in faults),
            "Nothing was applied. Correct the file and run the command again; drbd-offsite.conf(5) has every key.",
        )
    return site


def updated(text: str, changes: Mapping[str, str | None], source: str = str(PATH)) -> str:
    """``text`` with ``section.key`` or ``section.subsection.key`` set; None removes a (sub)section or key.

    Comments and order survive (indentation and quoting are made uniform); where nothing differs, the
    text comes back as it was, byte for byte. The result is not validated here. Raises ConfigError
    where ``text`` is no ConfigObj file, or a value cannot be written in one.
    """
    document = _document(text, source, spec=False)
    before = document.dict()
    for dotted, value in changes.items():
        _assign(document, dotted, value)
    if document.dict() == before:
        return text
    document.indent_type = "  "
    try:
        return "\n".join(document.write()) + "\n"
    except ConfigObjError as error:  # both kinds of triple quotes in one value
        raise ConfigError(f"{source}: {error}", "Nothing was changed. Leave the quotes out of that value.") from error


def renamed(text: str, name: str, new: str) -> str:
    """``text`` with another name for the section of a resource, and else byte for byte as it was."""
    lines = text.splitlines(keepends=True)
    within = False
    for number, line in enumerate(lines):
        marker = re.match(r"""\s*((?:\[\s*)+)["']?([^]"'\s]+)["']?\s*\]""", line)
        depth = marker[1].count("[") if marker else 0
        if marker and depth == 1:
            within = marker[2] == "resources"
        elif marker and depth == 2 and within and marker[2] == name:
            lines[number] = line[: marker.start(2)] + new + line[marker.end(2) :]
    return "".join(lines)


def initial(flavour: Flavour) -> str:
    """The text of a new file: every key of ``[site]`` and of one peer with its comment and default."""
    lines = [HEADER, "[site]"]
    for name, comment, check in keys("site"):
        value = flavour.value if name == "flavour" else default_of(check)
        lines += [*(f"  # {line}" for line in comment), f"  {name} = {value or QUOTED_NOTHING}"]
    lines += ["", "[peers]"]
    if flavour is Flavour.SERVER:
        lines.append("  [[backup]]")
        for name, comment, check in keys("peers"):
            lines += [*(f"    # {line}" for line in comment), f"    {name} = {default_of(check) or QUOTED_NOTHING}"]
    lines += ["", "[resources]"]
    return "\n".join(lines) + "\n"


QUOTED_NOTHING = '""'


def keys(section: str) -> Iterator[tuple[str, list[str], str]]:
    """Name, comment lines and check of each key of ``site``, ``verify``, ``peers`` or ``resources``."""
    spec = _spec()[section]
    spec = spec.get("__many__", spec)
    for name in spec.scalars:
        yield name, [line.removeprefix("# ") for line in spec.comments[name] if line], spec[name]


def default_of(check: str) -> str | None:
    """The default in a check of the configspec; None where the key has to be given."""
    match = re.search(r"default=(?:'([^']*)'|([^,)]*))", check)
    return None if match is None else match[1] if match[1] is not None else match[2]


def allowed(check: str) -> str:
    """What a check of the configspec lets through, in words."""
    kind = re.match(r"\w+", check)
    match kind[0] if kind else "":
        case "integer":
            low, high = re.search(r"min=(-?\d+)", check), re.search(r"max=(-?\d+)", check)
            return f"a whole number from {low[1]} to {high[1]}" if low and high else "a whole number"
        case "boolean":
            return "yes or no"
        case "option":
            words = re.findall(r"'([^']*)'", check.partition("default=")[0])
            return "one of " + ", ".join(words)
        case kind_word:
            return _WORDS.get(kind_word, "a text")


def _match(pattern: str) -> Callable[[str], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or (value and not re.fullmatch(pattern, value)):
            raise VdtValueError(value)
        return value

    return check


def _noun(parse: Callable[[str], object]) -> Callable[[str], object]:
    def check(value: object) -> object:
        try:  # a list is a value with a comma and without quotes
            return parse(",".join(value) if isinstance(value, list) else str(value))
        except ValueError as error:
            raise VdtValueError(value) from error

    return check


def _seconds(value: object) -> float:
    if value == "forever":
        return math.inf
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,6}", value):
        raise VdtValueError(value)
    return float(value)


def _resync_rate(value: object) -> int:
    rate = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,7}", value) else -1
    if rate and rate not in RESYNC_RATES:
        raise VdtValueError(value)
    return rate


def _command(value: object) -> tuple[str, ...]:
    """As a shell would take it apart; no shell ever sees it. A list is a value with a comma and without quotes."""
    if not isinstance(value, str):
        raise VdtValueError(value)
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise VdtValueError(value) from error


_CHECKS: dict[str, Callable[..., object]] = {
    "lvm_name": _match(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*"),
    "mail": _match(r"[A-Za-z0-9._%+-]+(?:@" + HOST + ")?"),
    "hostname": _match(HOST),
    # IPv6 literals are hosts too; OpenVPN and WireGuard take them.
    "host": _match(rf"{HOST}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"),
    # openvpn: SHA-256 with colons; wireguard: 32 bytes in base64
    "fingerprint": _match(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}|[A-Za-z0-9+/]{43}="),
    "interface": _match(r"[A-Za-z][A-Za-z0-9_.-]{0,14}"),
    "ipv4": _noun(lambda text: str(ipaddress.IPv4Address(text))),
    "directory": _match(r"/[\x21-\x7e]{1,1000}"),
    "seconds_or_forever": _seconds,
    "resync_rate": _resync_rate,
    "hours": _noun(Hours.parse),
    "command": _command,
    "volume": _noun(VolumeName.parse),
    "metadata": _noun(MetadataPlace.parse),
}
_WORDS = {
    "lvm_name": LVM_NAME,
    "mail": "a mail address or a local user's name",
    "hostname": "a host name",
    "host": "a host name or an IP address",
    "fingerprint": "32 hexadecimal pairs with colons, or a WireGuard public key",
    "interface": "the name of a network interface, at most 15 characters",
    "ipv4": "an IPv4 address",
    "directory": "an absolute path without blanks",
    "seconds_or_forever": 'a whole number of seconds, or "forever"',
    "resync_rate": f"0, or a whole number from {RESYNC_RATES[0]} to {RESYNC_RATES[-1]}",
    "hours": "a part of the week (mon-fri 08:00-18:00, sat,sun 00:00-24:00)",
    "command": "a program and its arguments; in quotes, if there is a comma or a # in it",
    "volume": "a logical volume as GROUP/NAME",
    "metadata": "a metadata place as GROUP/NAME[SLOT] or GROUP/NAME",
    "string": "a text",
}


@functools.cache
def _spec() -> ConfigObj:
    text = Path(__file__).with_name("drbd-offsite.spec").read_text(encoding="utf-8")
    return ConfigObj(text.splitlines(), interpolation=False, list_values=False, _inspec=True)


def _document(text: str, source: str, spec: bool = True) -> ConfigObj:
    try:
        return ConfigObj(text.splitlines(), interpolation=False, configspec=_spec() if spec else None)
    except ConfigObjError as error:
        raise ConfigError(
            f"{source}: {error}", "Nothing was applied. Correct the line and run the command again."
        ) from error


def _assign(document: ConfigObj, dotted: str, value: str | None) -> None:
    section, _, rest = dotted.partition(".")
    subsection, _, key = rest.rpartition(".")
    place = document.setdefault(section, {})
    if value is None:
        if rest in place or not subsection:  # a subsection's name may have dots
            place.pop(rest, None)
        else:
            place.get(subsection, {}).pop(key, None)
        return
    if subsection:
        place = place.setdefault(subsection, {})
    if place.get(key) != value:
        place[key] = value


def _faults(document: ConfigObj) -> Iterator[str]:
    """Every key that is unknown, missing or out of range."""
    verdict = document.validate(Validator(_CHECKS), preserve_errors=True)
    spec = _spec()
    for path, key, error in flatten_errors(document, verdict):
        place = _place(path)
        if key is None:
            yield f"the section {_place(path)} is missing"
            continue
        check = _check_of(spec, path, key)
        if error is False or isinstance(error, VdtMissingValue):
            yield f"{place} {key}: missing (allowed: {allowed(check)})"
        else:
            found = _reach(document, path).get(key)
            yield f"{place} {key} = {_written(found)}: not {allowed(check)}"
    for hours in document["schedule"]:
        try:
            Hours.parse(hours)
        except ValueError:
            yield f"[schedule] {hours}: not {_WORDS['hours']}"
    for path, name in get_extra_values(document):
        yield f"{_place(path)} {name}: there is no such key or section".strip()


def _place(path: list[str] | tuple[str, ...]) -> str:
    return " ".join("[" * depth + name + "]" * depth for depth, name in enumerate(path, 1))


def _reach(document: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    for name in path:
        document = document[name]
    return document


def _check_of(spec: ConfigObj, path: list[str], key: str) -> str:
    for name in path:
        spec = spec[name] if name in spec else spec["__many__"]
    return str(spec[key] if key in spec else spec["__many__"])


def _written(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _site(document: ConfigObj) -> Site:
    site, verify = document["site"], document["verify"]
    return Site(
        flavour=Flavour(site["flavour"]),
        volume_group=site["volume_group"],
        metadata_volume=site["metadata_volume"],
        battery_backed_cache=site["battery_backed_cache"],
        alert_address=site["alert_address"],
        unprotected_minutes=site["unprotected_minutes"],
        age_minutes=site["age_minutes"],
        remind_hours=site["remind_hours"],
        silence_hours=site["silence_hours"],
        keep_discarded_days=site["keep_discarded_days"],
        resync_snapshot=RestorePoint(site["resync_snapshot"]),
        first_sync=Congestion(site["first_sync"]),
        drill_days=site["drill_days"],
        drill_minutes=site["drill_minutes"],
        boot_wait=site["boot_wait"],
        service_port=site["service_port"],
        schedule=tuple((Hours.parse(hours), percent) for hours, percent in document["schedule"].items()),
        verify=Verification(verify["days"], verify["hours"], verify["rate"]),
        peers={name: _peer(name, keys) for name, keys in document["peers"].items()},
        resources={name: _resource(name, keys) for name, keys in document["resources"].items()},
    )


def _peer(name: str, keys: Mapping[str, Any]) -> Peer:
    return Peer(
        name=name,
        hostname=keys["hostname"],
        fingerprint=keys["fingerprint"],
        link_speed=keys["link_speed"],
        tunnel=Tunnel(
            mode=TunnelMode(keys["tunnel"]),
            device=keys["device"],
            dials=Flavour(keys["dials"]),
            reachable_as=keys["reachable_as"],
            port=keys["port"],
            server_address=keys["server_address"],
            backup_address=keys["backup_address"],
        ),
    )


def _resource(name: str, keys: Mapping[str, Any]) -> Resource:
    return Resource(
        name=name,
        peer=keys["peer"],
        here=Replica(keys["volume"], keys["metadata"], keys["minor"], keys["port"]),
        there=Replica(keys["peer_volume"], keys["peer_metadata"], keys["peer_minor"], keys["peer_port"]),
        priority=keys["priority"],
        resync_rate=keys["resync_rate"],
        alerts=Alerts(keys["alerts"]),
        mount=keys["mount"],
        drill_command=keys["drill_command"],
    )


def resource_keys(resource: Resource) -> dict[str, str]:
    """A resource as changes for `updated`."""
    here, there = resource.here, resource.there
    values = {
        "peer": resource.peer,
        "volume": str(here.volume),
        "peer_volume": str(there.volume),
        "metadata": str(here.metadata),
        "peer_metadata": str(there.metadata),
        "minor": str(here.minor),
        "peer_minor": str(there.minor),
        "port": str(here.port),
        "peer_port": str(there.port),
    }
    usual = {name: default_of(check) for name, _, check in keys("resources")}
    values |= {key: text for key in (*TUNABLE, "mount") if (text := str(getattr(resource, key))) != usual[key]}
    return {f"resources.{resource.name}.{key}": value for key, value in values.items()}
