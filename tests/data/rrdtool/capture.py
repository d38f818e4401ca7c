"""What rrdtool says of a history that grows, stops and goes on, and of what is none: DIRECTORY gets the files."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from drbd_offsite.tools import rrdtool
from drbd_offsite.tools.rrdtool import Sample


def said(argv: tuple[str, ...], commands: list[str], directory: str) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    text = rrdtool.input_of(commands)
    return subprocess.run(
        argv, input=text, env=environment, cwd=directory, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main(directory: Path) -> None:
    now = int(time.time()) // 60 * 60
    with tempfile.TemporaryDirectory() as name:
        Path(name, "none.rrd").write_text("no database")
        commands = [rrdtool.create("a.rrd", now - 720)]
        for minute in range(12):
            # Six minutes in which more is written than sent, a counter that begins anew, and an age that is not known.
            written = (minute if minute < 6 else minute - 6) * 6_000_000
            age = None if minute < 3 else 60.0 * minute
            sample = Sample(written, minute * 3_000_000, minute * 1_500_000, age)
            commands.append(rrdtool.update("a.rrd", now - 720 + minute * 60, sample))
        commands += [
            rrdtool.averages("a.rrd"),
            rrdtool.update("a.rrd", now - 3600, Sample(1, 1, 1, 1.0)),
            rrdtool.create("a.rrd", now),
            rrdtool.update("none.rrd", now, Sample(1, 1, 1, 1.0)),
            rrdtool.averages("none.rrd"),
            rrdtool.create("b.rrd", now),
            rrdtool.averages("b.rrd"),
        ]
        (directory / "control.txt").write_text(said(rrdtool.CONTROL, commands, name))
        (directory / "export.json").write_text(said(rrdtool.export("a.rrd", now - 900, now, 80), [], name))
        print(now)


main(Path(sys.argv[1]))
