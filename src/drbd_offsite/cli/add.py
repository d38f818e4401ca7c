"""``add``: one command a volume, or one for many."""

import argparse
from collections.abc import Iterator, Sequence

from .. import config, journal
from ..errors import ExitCode, OffsiteError, Refused, UsageError
from ..host import survey
from ..messages import SEED_PATH
from ..model import PRIORITIES, Flavour, Site, VolumeName
from ..operations import half
from ..plan import guards
from ..plan.actions import describe
from ..plan.task import half_of, tagged
from .common import tell
from .progress import await_sync


def arguments(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "volume", metavar="VOLUME", nargs="*", default=[], help="/dev/GROUP/NAME or GROUP/NAME; what is on it is kept"
    )
    chosen.add_argument(
        "--all", action="store_true", help="add every volume that has the tag and is not replicated yet"
    )
    parser.add_argument("--tag", default="", help="the LVM tag that chooses the volumes, as @offsite or offsite")
    parser.add_argument("--name", default="", help="the resource's name; the volume's if not given")
    parser.add_argument("--peer", default="", help="the backup to copy to, if there are several")
    parser.add_argument(
        "--priority",
        type=int,
        default=0,
        metavar="N",
        help=f"from {PRIORITIES[0]} to {PRIORITIES[-1]}; a higher one has its resyncs first",
    )
    parser.add_argument(
        "--remount", action="store_true", help="unmount it, and mount the replicated device there, now and in fstab"
    )
    parser.add_argument(
        "--overwrite-metadata",
        action="store_true",
        help="DRBD metadata found in the slot may be overwritten, on both sides",
    )
    parser.add_argument(
        "--seed",
        default="",
        metavar="FILE",
        help="fill the backup's volume from this file there first, which export-seed has written",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the first sync")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, as far as it can be known")


def run(options: argparse.Namespace) -> int:
    volumes = _named(options)
    site = config.load()
    guards.enforce(guards.flavour(site, Flavour.SERVER, "add"))
    wishes = half.Wishes(
        name=options.name,
        peer_name=options.peer,
        remount=options.remount,
        overwrite_metadata=options.overwrite_metadata,
        priority=options.priority,
        seed=options.seed,
    )
    if options.all:
        volumes = _tagged(site, options.tag.removeprefix("@"))
    outstanding = list(_outstanding(site, volumes)) if options.all or len(volumes) > 1 else volumes
    if options.dry_run:
        host = half.host_with_drbd(site)
        for operation in half.preflight(site, outstanding, **wishes):
            for step in half.steps(site, host, operation):
                print(f"{operation.resource}: {describe(step)}")
        return ExitCode.DONE
    if len(outstanding) > 1:
        adds = half.preflight(site, outstanding, **wishes)
        outstanding = [found.volume for operation in adds if (found := half_of(operation))]
    _add(outstanding, wishes)
    site = config.load()
    names = [resource.name for resource in site.resources.values() if resource.here.volume in volumes]
    return ExitCode.DONE if options.no_wait else await_sync(site, *names)


def _named(options: argparse.Namespace) -> list[VolumeName]:
    """The volumes of the call, each once. Raises UsageError also for what does not go together."""
    if options.all != bool(options.tag.removeprefix("@")):
        raise UsageError(
            "--all and --tag go together: they add every volume that has the tag.",
            "drbd-offsite add --all --tag @offsite",
        )
    try:
        volumes = list(dict.fromkeys(map(VolumeName.parse, options.volume)))
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    if options.name and len(volumes) != 1:
        raise UsageError("--name is for one volume; several have their own names.")
    if options.seed and len(volumes) != 1:
        raise UsageError("--seed is for one volume; each needs a file of its own.")
    if not SEED_PATH.match(options.seed):
        raise UsageError("--seed takes the whole path of a file on the backup, in plain characters: /mnt/seed.")
    if options.priority not in PRIORITIES:
        raise UsageError(f"A priority is a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}.")
    return volumes


def _tagged(site: Site, tag: str) -> list[VolumeName]:
    volumes = tagged(site, survey(site), tag)
    if not volumes:
        raise Refused(
            f"No volume of this machine that can be replicated has the tag {tag[:200]}.",
            f"Give it to those that are to be: lvchange --addtag {tag[:200]} GROUP/NAME",
        )
    return volumes


def _outstanding(site: Site, volumes: Sequence[VolumeName]) -> Iterator[VolumeName]:
    """Those that are not resources yet, or not completely."""
    replicated = {resource.here.volume: resource.name for resource in site.resources.values()}
    under_way = _under_way()
    for volume in volumes:
        if volume in replicated and volume not in under_way:
            tell(f"{volume} is replicated already, as {replicated[volume]}.")
        else:
            yield volume


def _under_way() -> set[VolumeName]:
    return {found.volume for operation in journal.operations().values() if (found := half_of(operation))}


def _add(volumes: Sequence[VolumeName], wishes: half.Wishes) -> None:
    """One after the other, without waiting for their syncs: DRBD itself has them wait for each other."""
    for number, volume in enumerate(volumes):
        try:
            name = half.add(config.load(), volume, tell=tell, **wishes)
        except OffsiteError as error:
            if len(volumes) > 1:
                error.message = f"{volume}: {error.message}\n{_so_far(volumes, number)}"
                error.hint = f"{error.hint}\nNothing is lost, and the same command goes on from here.".lstrip()
            raise
        device = config.load().resources[name].by_res
        tell(f"{name} is served as {device}. Use that device from now on, and never {volume.path}.")


def _so_far(volumes: Sequence[VolumeName], failed: int) -> str:
    """Where a command for several volumes has stopped."""
    begun = int(volumes[failed] in _under_way())
    parts = {
        "Replicated now": volumes[:failed],
        "Unfinished": volumes[failed : failed + begun],
        "Not begun": volumes[failed + begun :],
    }
    return " ".join(f"{state}: {', '.join(map(str, those))}." for state, those in parts.items() if those)
