"""``events``: the journal, for a person or as JSON."""

import argparse
import json

from .. import journal
from ..errors import ExitCode
from .common import resources_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> int:
    for entry in journal.events():
        if options.resources and entry.get("resource") not in options.resources:
            continue
        if options.json:
            print(json.dumps(entry))
        else:
            print(f"{entry.get('at')}  {entry.get('resource') or '-':12}  {entry.get('event')}: {entry.get('text')}")
    return ExitCode.DONE
