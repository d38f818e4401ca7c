"""``drill``: whether the copies here could be used after a disaster, tried on snapshots of them."""

import argparse
import json

from .. import config
from ..errors import ExitCode
from ..model import Flavour
from ..plan import guards
from ..plan.drilled import Outcome
from .common import chosen, in_order, resources_argument, tell

_CODES = {
    Outcome.PASSED: ExitCode.DONE,
    Outcome.WARNED: ExitCode.WARNED,
    Outcome.UNTESTED: ExitCode.WARNED,
    Outcome.FAILED: ExitCode.FAILED,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--json", action="store_true", help="the results as a JSON list")


def run(options: argparse.Namespace) -> int:
    from ..operations.drill import drill
    from ..operations.inspect import Busy
    from ..plan.drill import as_json, as_text

    site = config.load()
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "drill"))
    resources = chosen(site, options.resources)
    results = []
    refused = False
    with in_order():
        for resource in resources:
            try:
                result = drill(site, resource, tell)
            except Busy as error:
                tell(f"{error.message} {error.hint}")
                refused = True
                continue
            results.append(result)
            if not options.json:
                print(as_text(result), flush=True)
    if options.json:
        print(json.dumps([as_json(result) for result in results], indent=2))
    outcomes = [result.outcome for result in results]
    # Not the largest code: what has failed is worse than what could not be done.
    code = _CODES[max(outcomes, key=list(Outcome).index, default=Outcome.PASSED)]
    return ExitCode.REFUSED if refused and code is ExitCode.DONE else code
