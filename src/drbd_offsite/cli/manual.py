"""The manual pages and the bash completion, made from the parser, the enums and the configspec.

``python3 -m drbd_offsite.cli.manual DIRECTORY`` writes them; the packages' build calls it. The prose around
what is made here is in ``../manual/``.
"""

import argparse
import os
import re
import textwrap
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import cast

from .. import config
from ..errors import ExitCode
from ..plan import metrics
from ..plan.assess import Level
from . import VERBS, build
from .status import SCHEMA

CALLED = ("configure", "watch", "turn", "files", "deliver", "peer-service", "peer-files")
"""Verbs for other programs; the completion does not offer them."""

EXIT_CODES = {
    ExitCode.DONE: "Done, or there was nothing to do.",
    ExitCode.FAILED: "Failed; the message says what, and what to do next.",
    ExitCode.USAGE: "The words of the call are wrong.",
    ExitCode.REFUSED: "Refused, and nothing was changed; the message is the reason and the way on.",
    ExitCode.PEER_UNREACHABLE: "The peer did not answer, which says nothing about its data.",
    ExitCode.HELD: "A hold is in the way.",
    ExitCode.WARNED: "Nothing is broken, and something has to be seen to (doctor, drill, failback).",
}

LEVELS = {
    Level.OK: "Both copies are up to date.",
    Level.CATCHING_UP: "Connected, and one copy still lacks something.",
    Level.HELD: "Held, because a person has asked for it.",
    Level.UNPROTECTED: "Not connected: what changes is noted and not copied.",
    Level.BROKEN: "Not served as it should be; or a hold or remark that nobody has asked for; or a command that makes "
    "it is not finished; or, on the backup, its last drill has failed or found something, or none has passed for "
    "drill_days.",
}

WIDTH = 79
"""Of the pages' source lines."""

OFFERED = {
    "file": "files=yes",
    "png": "files=yes",
    "volume": "files=yes",
    "peer": "offered=$(_drbd_offsite_names peers)",
    "resources": "offered=$(_drbd_offsite_names resources)",
}
"""What the completion offers for an argument, or for the value of an option, of that name."""


def main(directory: Path) -> None:
    now = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    for name, text in made(datetime.fromtimestamp(now, UTC).date().isoformat(), _version()).items():
        (directory / name).write_text(text, encoding="utf-8")


def made(date: str, version: str) -> dict[str, str]:
    """The text of each file, by its name."""
    parser = build(list(VERBS))
    verbs = next(cast("dict[str, argparse.ArgumentParser]", a.choices) for a in _actions(parser) if a.dest == "verb")
    common = set.intersection(*({a.dest for a in _actions(command)} for command in verbs.values()))
    own = {verb: [a for a in _actions(command) if a.dest not in common] for verb, command in verbs.items()}
    parts = {
        "date": date,
        "version": version,
        "config": str(config.PATH),
        "commands": _commands({verb: own[verb] for verb in verbs if verb not in CALLED}, verbs),
        "called": _commands({verb: own[verb] for verb in CALLED}, verbs),
        "options": _described(a for a in _actions(next(iter(verbs.values()))) if a.dest in common),
        "global_options": _described(a for a in _actions(parser) if a.dest != "verb"),
        "exit_codes": "\n".join(f".TP\n.B {int(code)}\n{roff(EXIT_CODES[code])}" for code in ExitCode),
        "levels": "\n".join(
            f'.TP\n.BR {level.name.lower()} " (exit code {int(level.exit_code)})"\n{roff(LEVELS[level])}'
            for level in Level
        ),
        "metrics": "\n".join(f".TP\n.B {metrics.PREFIX}{name}\n{roff(text)}" for name, text in metrics.HELP.items()),
        "failed": str(int(Level.BROKEN.exit_code)),
        "schema": str(SCHEMA),
        **{section: _keys(section) for section in ("site", "verify", "peers", "resources")},
        "cases": _cases(parser, verbs),
        "values": _values(own.values()),
    }
    pages = {name: _wrapped(_filled(_prose(f"{name}.in"), parts)) for name in ("drbd-offsite.8", "drbd-offsite.conf.5")}
    return {**pages, "drbd-offsite": _filled(_prose("completion.in"), parts)}


def roff(text: str) -> str:
    """``text`` so that troff prints it as it is, wherever its lines begin."""
    text = text.replace("\\", "\\e")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


def literal(text: str) -> str:
    """What is typed as it is: a hyphen must stay one when it is copied from the page."""
    return roff(text).replace("-", "\\-").replace("'", "\\(aq").replace("~", "\\(ti").replace("^", "\\(ha")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001  argparse has no other way to ask


def _prose(name: str) -> str:
    return resources.files("drbd_offsite").joinpath("manual", name).read_text(encoding="utf-8")


def _version() -> str:
    """Empty outside the packages' build, which writes the file."""
    file = resources.files("drbd_offsite").joinpath("VERSION")
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""


def _filled(text: str, parts: Mapping[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: parts[match[1]], text)


def _wrapped(text: str) -> str:
    """Long lines of running text broken; troff fills them anyway, and examples are left alone."""
    lines: list[str] = []
    example = False
    for line in text.split("\n"):
        example = line == ".EX" or (example and line != ".EE")
        if example or len(line) < WIDTH or line.startswith("."):
            lines.append(line)
        else:
            first, *more = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
            lines += [first, *("\\&" + piece if piece.startswith((".", "'")) else piece for piece in more)]
    return "\n".join(lines)


def _commands(own: Mapping[str, list[argparse.Action]], verbs: Mapping[str, argparse.ArgumentParser]) -> str:
    """A subsection for each verb: how it is called, what it does, its arguments."""
    told = dict(re.findall(r"^@([a-z-]+)\n((?:[^@].*\n)+)", _prose("commands.in"), re.MULTILINE))
    lines = []
    for verb, actions in own.items():
        words = [f"[{_head(a)}]" if a.option_strings or a.nargs in ("?", "*") else _head(a) for a in actions]
        lines += [f".SS {literal(verb)}", f".B drbd\\-offsite {literal(verb)}", *words, ".PP"]
        lines += [roff(verbs[verb].description or ""), *told.get(verb, "").splitlines()]
        if actions:
            lines.append(_described(actions))
    return "\n".join(lines)


def _described(actions: Iterable[argparse.Action]) -> str:
    return "\n".join(f".TP\n{_head(action)}\n{roff(_sentence(action.help or ''))}" for action in actions)


def _head(action: argparse.Action) -> str:
    """An option or argument as it is called."""
    if action.choices is not None:
        value = "\\fB" + "\\fP|\\fB".join(literal(str(choice)) for choice in action.choices) + "\\fP"
    else:
        value = f"\\fI{literal(str(action.metavar or action.dest.upper()))}\\fP"
    if not action.option_strings:
        return f"{value}..." if action.nargs == "*" else value
    names = ", ".join(f"\\fB{literal(name)}\\fP" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _keys(section: str) -> str:
    """Each key of a section; those that share a comment share an entry."""
    entries: list[tuple[list[str], list[str], list[str]]] = []
    for name, comment, check in config.keys(section):
        if comment or not entries:
            entries.append((comment, [], []))
        entries[-1][1].append(f".B {literal(name)}")
        entries[-1][2].append(check)
    return "\n".join(
        "\n".join([".TP", "\n.TQ\n".join(names), *map(roff, comment), ".br", roff(_bounds(checks))])
        for comment, names, checks in entries
    )


def _bounds(checks: list[str]) -> str:
    defaults = dict.fromkeys(config.default_of(check) for check in checks)
    given = None in defaults
    held = "It has to be given." if given else f"Default: {' and '.join(d or 'empty' for d in defaults)}."
    return f"Allowed: {config.allowed(checks[0])}. {held}"


def _cases(parser: argparse.ArgumentParser, verbs: Mapping[str, argparse.ArgumentParser]) -> str:
    """Per verb, what the completion offers."""
    people = " ".join(verb for verb in verbs if verb not in CALLED)
    lines = [f'        "") options="{_option_words(parser)}" offered="{people}" ;;']
    for verb, command in verbs.items():
        offers = [_offered(a) for a in _actions(command) if not a.option_strings]
        lines.append(" ".join([f'        {verb}) options="{_option_words(command)}"', *offers, ";;"]))
    return "\n".join(lines)


def _values(own: Iterable[list[argparse.Action]]) -> str:
    """What the completion offers after an option that takes a value; nothing where it is free text."""
    valued = {name: _offered(a) for actions in own for a in actions for name in a.option_strings if a.nargs != 0}
    then = {name: f'files="" {offer}' if offer else "return" for name, offer in valued.items()}
    return "\n".join(f"        {name}) {what} ;;" for name, what in then.items())


def _option_words(parser: argparse.ArgumentParser) -> str:
    return " ".join(name for action in _actions(parser) for name in action.option_strings)


def _offered(action: argparse.Action) -> str:
    return f'offered="{" ".join(map(str, action.choices))}"' if action.choices else OFFERED.get(action.dest, "")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python3 -m drbd_offsite.cli.manual", description=__doc__)
    arguments.add_argument("directory", metavar="DIRECTORY", type=Path)
    main(arguments.parse_args().directory)
