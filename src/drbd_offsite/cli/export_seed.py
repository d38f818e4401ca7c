"""``export-seed``: the first copy on a disk instead of the line."""

import argparse
from pathlib import Path

from .. import config
from ..errors import ExitCode, UsageError
from ..model import VolumeName
from ..operations.seed import export
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", metavar="VOLUME", help="/dev/GROUP/NAME or GROUP/NAME; it stays in use")
    parser.add_argument("file", metavar="FILE", help="the file to write, on the disk that is carried to the backup")


def run(options: argparse.Namespace) -> int:
    try:
        volume = VolumeName.parse(options.volume)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    export(config.load(), volume, Path(options.file).absolute(), tell)
    tell(f"{options.file} is whole. With its disk mounted on the backup: drbd-offsite add {volume} --seed FILE")
    return ExitCode.DONE
