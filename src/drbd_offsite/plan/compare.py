"""What differs between the two copies of a resource, file by file, in words. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UsageError
from ..model import Flavour
from ..tools.rsync import Change, What

SUFFIX = ".before-failback"
"""Of what a file was here before the other machine's came in its place; the instant comes behind it."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    path: str
    how: str


DIFFERS = "differs"
ATTRIBUTES_DIFFER = "attributes differ"


def only_on(flavour: Flavour) -> str:
    return f"only on the {flavour}"


def differences(changes: Iterable[Change], here: Flavour) -> list[Difference]:
    """By path; ``here`` is this machine."""
    words = {
        What.ONLY_HERE: only_on(here),
        What.ONLY_THERE: only_on(here.other),
        What.CONTENT: DIFFERS,
        What.ATTRIBUTES: ATTRIBUTES_DIFFER,
    }
    return sorted(Difference(change.path, words[change.what]) for change in changes)


def counted(found: Iterable[Difference]) -> str:
    """How many of each kind, in one line."""
    counts = Counter(difference.how for difference in found)
    kinds = (*map(only_on, Flavour), DIFFERS, ATTRIBUTES_DIFFER)
    return ", ".join(f"{how}: {counts[how]}" for how in kinds if counts[how]) or "nothing differs"


def shown(path: str) -> str:
    """A name as a terminal may have it; one that it could not print as bash reads it (``$'…'``)."""
    if path.isprintable():
        return path
    return "$'" + "".join(map(_shown, path)) + "'"


def _shown(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def checked(paths: Iterable[str]) -> list[str]:
    """Paths from the top of a filesystem. Raises UsageError for one that leads out of it, or is all of it."""
    found = [path.rstrip("/") if path.strip("/") else path for path in paths]
    for path in found:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise UsageError(
                f"{shown(path)!r} is no path from the top of the filesystem.",
                'As failback --diff prints them: without a "/" at the beginning, and without "." and "..".',
            )
    return found
