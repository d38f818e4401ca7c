"""Which devices the admin's own LVM commands read: lvm.conf(5), "devices", and lvmdevices(8)."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

Argv = tuple[str, ...]

EFFECTIVE: Argv = (
    "lvmconfig", "--typeconfig", "full",
    "devices/filter", "devices/global_filter", "devices/use_devicesfile", "devices/devicesfile",
)  # fmt: skip
"""What LVM really uses, its defaults included. It fails for a setting that this LVM does not know, and prints the
others all the same."""

REJECT_DRBD = "r|^/dev/drbd|"
_EVERYTHING = ("a|.*|",)
"""The default of both filters."""


@dataclass(frozen=True, slots=True)
class Settings:
    filter_patterns: tuple[str, ...] = _EVERYTHING
    global_patterns: tuple[str, ...] = _EVERYTHING
    devices_file: str = ""
    """Its name below /etc/lvm/devices; empty where none is to be used. Where it exists, LVM reads what is listed in
    it, and no filter counts."""

    def reads(self, names: Collection[str]) -> bool:
        """Whether the filters let LVM read a device that has these names."""
        return _accepted(self.filter_patterns, names) and _accepted(self.global_patterns, names)

    @property
    def line_past_drbd(self) -> str:
        """The line for lvm.conf that keeps LVM from DRBD's devices and leaves the rest as it is."""
        others = () if self.global_patterns == _EVERYTHING else self.global_patterns
        return f"global_filter = [ {', '.join(_quoted(pattern) for pattern in (REJECT_DRBD, *others))} ]"


def parse(text: str) -> Settings:
    """The output of `EFFECTIVE`: ``key=value`` lines. Raises ValueError for filters that LVM would not take."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    if "filter" not in values:
        raise ValueError("lvmconfig does not say what LVM's filter is")
    file = "".join(_strings(values.get("devicesfile", "")))
    return Settings(
        _patterns(values["filter"]),
        _patterns(values.get("global_filter", "")),
        file if values.get("use_devicesfile") == "1" else "",
    )


def _patterns(value: str) -> tuple[str, ...]:
    found = _strings(value)
    for pattern in found:
        try:
            re.compile(_regex(pattern))
        except re.error as error:
            raise ValueError(f"{pattern!r} in LVM's filter is no pattern: {error}") from error
        if pattern[:1] not in ("a", "r") or len(pattern) < 3:
            raise ValueError(f"{pattern!r} in LVM's filter is no pattern")
    return found


def _strings(value: str) -> tuple[str, ...]:
    return tuple(re.sub(r"\\(.)", r"\1", quoted) for quoted in re.findall(r'"((?:[^"\\]|\\.)*)"', value))


def _quoted(pattern: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", pattern) + '"'


def _regex(pattern: str) -> str:
    """Between the delimiters, whatever they are. LVM's expressions are a small part of Python's."""
    return pattern[2:-1]


def _accepted(patterns: Iterable[str], names: Collection[str]) -> bool:
    """For each name the first pattern counts that matches anywhere in it; one name that is accepted is enough, and
    one that nothing matches does not count (lvm.conf(5), "filter").
    """
    verdicts = {next((p[0] for p in patterns if re.search(_regex(p), name)), "") for name in names}
    return "a" in verdicts or "r" not in verdicts
