"""``configure``: the package's answers, as ``section.key=value`` lines, to the configuration file."""

import argparse
import sys

from .. import config, files
from ..errors import ExitCode, Refused, UsageError
from ..model import Flavour, Site
from ..operations.apply import apply
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flavour", choices=[flavour.value for flavour in Flavour], help="which of the two this machine is"
    )


def run(options: argparse.Namespace) -> int:
    changes: dict[str, str | None] = {"site.flavour": options.flavour}
    for line in sys.stdin:
        if line.strip():
            key, equals, value = line.rstrip("\n").partition("=")
            if not equals or "." not in key:
                raise UsageError(f"Not a line of the form section.key=value: {line.strip()[:80]!r}")
            changes[key] = value
    with files.lock("site", 30.0):
        text = files.read(config.PATH)
        if text is not None:
            _keep_flavour(config.parse(text), Flavour(options.flavour))
        changed = config.updated(text if text is not None else config.initial(Flavour(options.flavour)), changes)
        site = config.parse(changed)
        if changed != text:
            config.PATH.parent.mkdir(mode=0o755, exist_ok=True)
            files.write(config.PATH, changed, 0o644)
        for path in apply(site):
            tell(f"wrote {path}")
    return ExitCode.DONE


def _keep_flavour(site: Site, flavour: Flavour) -> None:
    if site.flavour is not flavour and site.resources:
        raise Refused(
            f"This machine is the {site.flavour} of {', '.join(site.resources)}, so it does not become the {flavour}.",
            f"Install drbd-offsite-{site.flavour} again; what is replicated goes on as it is.",
        )
