"""``failback --diff`` and ``--copy``: what differs between the two copies, and files from the other one."""

import dataclasses
import json

from ..errors import ExitCode, OffsiteError
from ..model import Resource, Site
from ..operations import compare
from ..plan.compare import counted, shown
from .common import tell


def diff(site: Site, resource: Resource, as_json: bool) -> int:
    found = compare.differences(site, resource, tell)
    if as_json:
        print(json.dumps([dataclasses.asdict(difference) for difference in found], indent=2))
    else:
        width = max((len(difference.how) for difference in found), default=0)
        for difference in found:
            print(f"{difference.how:<{width}}  {shown(difference.path)}")
        print(f"{resource.name}: {counted(found)}.")
    return ExitCode.WARNED if found else ExitCode.DONE


def copy(site: Site, resource: Resource, paths: list[str]) -> int:
    brought = compare.bring(site, resource, paths, tell)
    for change in brought.changes:
        print(shown(change.path))
    print(
        f"{resource.name}: {len(brought.changes)} brought from the {site.flavour.other} to {brought.into}. A file that "
        f"was there before has {brought.suffix} behind its name."
    )
    if brought.complaint:
        raise OffsiteError(
            f"Not all of it came: {brought.complaint}", "Nothing is lost on either machine; the same command goes on."
        )
    return ExitCode.DONE
