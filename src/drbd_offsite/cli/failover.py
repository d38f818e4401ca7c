"""``failover``: serve from the backup what the server serves no more."""

import argparse

from .. import config
from ..errors import ExitCode, OffsiteError, Refused, UsageError
from ..operations.failover import failover
from .common import chosen, tell, worst
from .consent import asked
from .looking import look, rehearse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resources", metavar="RESOURCE", nargs="*", help="what is taken over")
    parser.add_argument("--all", action="store_true", help="every resource, one after the other")
    parser.add_argument("--yes", action="store_true", help="do not ask, having read what is lost elsewhere")
    parser.add_argument(
        "--force-split-brain",
        action="store_true",
        help="even from a server that is alive: both copies may be written to, and one has to be given up later",
    )
    parser.add_argument(
        "--read-only",
        action="store_true",
        help="only look: a snapshot is mounted read-only, replication goes on, failback ends it",
    )
    parser.add_argument(
        "--test", action="store_true", help="walk through it on a snapshot; nothing is promoted, nobody is asked"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what is lost and what would be done")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    if bool(options.resources) == options.all:
        raise UsageError("Name the resources, or give --all.", "drbd-offsite status shows what there is.")
    if options.test and options.read_only:
        raise UsageError("--test and --read-only are two things.", "Give one of them.")
    if options.test or options.read_only:
        walk = rehearse if options.test else look
        return worst([walk(site, resource) for resource in chosen(site, options.resources)])
    codes = []
    for resource in chosen(site, options.resources):
        name = resource.name

        def wanted(lines: tuple[str, ...], name: str = name) -> bool:
            for line in lines:
                tell(f"{name}: {line}")
            return options.yes or asked(f"Take {name} over?")

        try:
            done = failover(
                site,
                resource,
                force=options.force_split_brain,
                consent=wanted,
                dry_run=options.dry_run,
                tell=print if options.dry_run else tell,
            )
        except OffsiteError as error:
            # What can be taken over is, whatever is the matter with another one.
            if not options.all:
                raise
            tell(f"{name}: {error.message} {error.hint}")
            codes.append(error.exit_code)
            continue
        if done is not None:
            where = f"mounted at {done.mounted_at}" if done.mounted_at else f"as {resource.here.device}, not mounted"
            print(f"{name}: served from this machine, {where}; that took {done.seconds:.0f} s.")
        elif not options.dry_run:
            raise Refused(f"{name} was not taken over, and nothing was changed.", "--yes does not ask.")
        codes.append(ExitCode.DONE)
    return worst(codes)
