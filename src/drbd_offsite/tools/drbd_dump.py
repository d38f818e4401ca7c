"""DRBD's configuration as it has it itself: what drbdadm reads (``dump-xml``, of today's and of 8.3's), what runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, fromstring

Argv = tuple[str, ...]

INTERNAL = "internal"


def dump(config: str) -> Argv:
    """Read by today's drbdadm, which also knows nearly all of 8.3's words (``syncer`` and what is in it).

    drbdadm takes ``__DRBD_NODE__`` for the name of this machine. Under nobody's name it reads every resource; under
    its own it reads none as long as one address is not there ("IP … not found on this host").
    """
    return ("env", "__DRBD_NODE__=-", "drbdadm", "-c", config, "dump-xml")


def dump_83(config: str) -> Argv:
    """Read by the parser of 8.3, which drbd-utils still has; it insists on this machine's name and addresses."""
    return ("/usr/lib/drbd/drbdadm-83", "-c", config, "dump-xml")


RUNNING: Argv = ("drbdsetup", "show")
"""What the kernel runs; it prints the shared secrets."""


def complaint(stderr: str) -> str:
    """Why nothing was read, on one line, without what drbdadm says about ``__DRBD_NODE__``."""
    lines = (" ".join(line.split()) for line in stderr.splitlines())
    return " ".join(line for line in lines if line and not re.search(r"__DRBD_NODE__|^PRETENDING", line))


_TOKENS = re.compile(r'#.*|"(?:[^"\\\n]|\\.)*"|[{};]|[^\s{};"#]+')
"""As drbdadm's scanner has them (user/v84/drbdadm_scanner.fl)."""


def sections(text: str) -> tuple[str, ...]:
    """What a file has at its top: ``resource test_a``, ``common``, ``global``, ``include drbd.d/*.res``."""
    found: list[str] = []
    head: list[str] = []
    depth = 0
    for token in _TOKENS.findall(text):
        if depth == 0 and token in ("{", ";"):
            found.append(" ".join(head))
            head = []
        elif depth == 0 and token[0] not in "#}":
            head.append(token.strip('"'))
        depth += {"{": 1, "}": -1}.get(token, 0)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Volume:
    number: int
    minor: int
    disk: str
    """A path; empty for a stacked resource, which has another one below it."""
    metadata: str
    """``/dev/local/drbd_meta[0]``, ``/dev/local/big_meta`` or ``internal``; empty where a machine has no disk."""
    device: str = ""
    """A path, where the file gives it one: ``/dev/drbd0``, ``/dev/drbd_home``."""


@dataclass(frozen=True, slots=True)
class Half:
    """What is written about one machine."""

    hostname: str
    """Empty for a ``floating`` one; two names for what is stacked."""
    family: str
    """``ipv4``; empty where DRBD 9 has the addresses elsewhere."""
    address: str
    port: int
    volumes: tuple[Volume, ...]


@dataclass(frozen=True, slots=True)
class DumpedResource:
    """A resource with what it has from ``common``."""

    name: str
    halves: tuple[Half, ...]
    options: Mapping[str, str]
    """Of ``net``, ``disk`` and ``options``, in 8.4's words."""
    handlers: Mapping[str, str]
    secret: str = field(repr=False)
    """``shared-secret``; empty where the machines do not ask each other for one."""
    file: str = field(default="", compare=False)
    """The one that defines it; empty from 8.3's parser, which does not say."""

    def half_of(self, hostname: str) -> Half | None:
        return next((half for half in self.halves if half.hostname == hostname), None)


def parse(text: str) -> dict[str, DumpedResource]:
    """The output of `dump` or `dump_83`, by name. Raises ValueError for anything else."""
    try:
        config = fromstring(text)  # noqa: S314, it is drbdadm's own
        common = config.find("common")
        return {element.attrib["name"]: _resource(element, common) for element in config.findall("resource")}
    except (ParseError, KeyError) as error:
        raise ValueError(f"not a dump of drbdadm: {error}") from error


def _resource(element: Element, common: Element | None) -> DumpedResource:
    options: dict[str, str] = {}
    handlers: dict[str, str] = {}
    for place in (common, element):  # what the resource says for itself counts
        for section, name, value in () if place is None else _options(place):
            (handlers if section == "handlers" else options)[name] = value
    secret = options.pop("shared-secret", "")
    halves = tuple(map(_half, element.findall("host")))
    file = element.get("conf-file-line", "").rpartition(":")[0]
    return DumpedResource(element.attrib["name"], halves, options, handlers, secret, file)


_NEW_WORDS = {"rate": "resync-rate", "after": "resync-after"}
"""What 8.3 had in ``syncer``; all its other words are 8.4's (drbd.conf(5))."""


def _options(place: Element) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of each option."""
    if "protocol" in place.attrib:  # 8.3's
        yield "net", "protocol", place.attrib["protocol"]
    for section in place.findall("section"):
        kind = section.attrib["name"]
        for option in section.findall("option") if kind != "startup" else ():
            name, value = option.attrib["name"], option.get("value")
            if value is None:  # 8.3's flags
                name, value = (name.removeprefix("no-"), "no") if name.startswith("no-") else (name, "yes")
            yield kind, _NEW_WORDS.get(name, name), value


def _half(host: Element) -> Half:
    address = host.find("address")
    family, port = ("", "0") if address is None else (address.attrib["family"], address.attrib["port"])
    volumes = host.findall("volume") or [host]  # 8.3 had one volume, and no word for it
    return Half(host.get("name", ""), family, host.findtext("address", ""), int(port), tuple(map(_volume, volumes)))


def _volume(element: Element) -> Volume:
    parts = {part.tag.removeprefix("flexible-"): part for part in element}
    metadata = parts.get("meta-disk", Element("none"))
    index = metadata.get("index")
    return Volume(
        int(element.get("vnr", "0")),
        int(parts["device"].attrib["minor"]),
        element.findtext("disk", ""),
        (metadata.text or "") + (f"[{index}]" if index is not None else ""),
        element.findtext("device", ""),
    )


_RESOURCE = re.compile(r'^resource "?([^\s"]+)"? \{$(.*?)^\}$', re.MULTILINE | re.DOTALL)
_VOLUME = re.compile(
    r"^\s+volume (\d+) \{\s+device\s+minor (\d+);"
    r'(?:\s+disk\s+"([^"]*)";\s+(?:flexible-)?meta-disk\s+"?([^";\s]+)"?(?: \[ (\d+) \])?;)?',
    re.MULTILINE,
)


def parse_running(text: str) -> dict[str, tuple[Volume, ...]]:
    """The output of `RUNNING`: each resource's volumes on this machine; one that is detached has no ``disk``.

    Of DRBD 8.4 and 9 (drbdsetup.c, show_scmd and show_volume).
    """
    return {name: tuple(map(_running_volume, _VOLUME.findall(body))) for name, body in _RESOURCE.findall(text)}


_NET = re.compile(r"^ {4}net \{$(.*?)^ {4}\}$", re.MULTILINE | re.DOTALL)


class OnCongestion(NamedTuple):
    """What a resource does when its line is full."""

    policy: str
    """``block`` or ``pull-ahead``."""
    fill: int
    """KiB on their way from which on it is; 0 for never."""


def parse_on_congestion(text: str) -> dict[str, OnCongestion]:
    """The output of `RUNNING`, by resource. DRBD 9 has it elsewhere and is not in it.

    Raises ValueError for a number that is not understood.
    """
    found = {}
    for name, body in _RESOURCE.findall(text):
        if net := _NET.search(body):
            # What is not shown has the usual value (drbd_limits.h of 8.4).
            usual = {"on-congestion": "block", "congestion-fill": "0s"}
            written = usual | dict(re.findall(r"^\s+(on-congestion|congestion-fill)\s+([\w-]+);", net[1], re.MULTILINE))
            found[name] = OnCongestion(written["on-congestion"], _kibibytes(written["congestion-fill"]))
    return found


_RATES = re.compile(r"^\s+device\s+minor (\d+);.*?^\s+disk \{$(.*?)^\s+\}$", re.MULTILINE | re.DOTALL)


class ResyncLimits(NamedTuple):
    """What limits the resyncs of an attached device, in KiB (a second)."""

    max_rate: int
    min_rate: int
    fill_target: int


_USUAL = {"c-max-rate": "102400k", "c-min-rate": "250k", "c-fill-target": "100s"}
"""What is not shown has this value (drbd_limits.h of 8.4)."""


def parse_rates(text: str) -> dict[int, ResyncLimits]:
    """The output of `RUNNING`, by minor. DRBD 9 has them elsewhere and is not in it.

    Raises ValueError for a number that is not understood.
    """
    found = {}
    for body in _RESOURCE.findall(text):
        for minor, options in _RATES.findall(body[1]):
            written = _USUAL | dict(re.findall(r"^\s+(c-[a-z-]+)\s+(\w+);", options, re.MULTILINE))
            found[int(minor)] = ResyncLimits(*(_kibibytes(written[name]) for name in _USUAL))
    return found


def _kibibytes(text: str) -> int:
    """``9155k``, ``1220s`` (sectors of 512 bytes) or bytes."""
    number, unit = (text[:-1], text[-1]) if text[-1] in "ks" else (text, "")
    return int(number) * {"k": 1024, "s": 512, "": 1}[unit] // 1024


def _running_volume(found: tuple[str, ...]) -> Volume:
    number, minor, disk, metadata, index = found
    return Volume(int(number), int(minor), disk, metadata + (f"[{index}]" if index else ""))
