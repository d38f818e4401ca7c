"""The pair of machines, and the named instants that both can be put back to."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .image import Image, ensure_image
from .machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Stage:
    """An instant worth keeping: how to get there, and from which other stage.

    After a rewind the machines' clocks leap, and what keeps time there (OpenVPN's keepalive) may take
    the leap for an outage: ``settled`` waits until that is over.
    """

    name: str
    build: Callable[[Lab], None]
    parent: Stage | None = None
    settled: Callable[[Lab], None] | None = None


class Lab:
    """Two machines, ``server`` and ``backup``, with the Internet between them."""

    def __init__(self, image: Image, run_dir: Path, *, detach: bool = False) -> None:
        self.run_dir = run_dir
        self.server = Machine("server", "backup", image, run_dir, detach=detach)
        self.backup = Machine("backup", "server", image, run_dir, detach=detach)
        self.machines = (self.server, self.backup)
        self._kept: set[str] = set()

    @classmethod
    def start(cls, *, detach: bool = False) -> Lab:
        """Boot both machines side by side.

        They end with this process, unless ``detach``: then whoever asked ends them by pid.
        """
        lab = cls(ensure_image(), Path(tempfile.mkdtemp(prefix="drbd-lab-")), detach=detach)
        if not detach:
            atexit.register(lab.close)
        try:
            lab.both(Machine.start)
        except BaseException:
            lab.close()
            raise
        return lab

    def close(self) -> None:
        """End both machines and remove what they left on the host."""
        for machine in self.machines:
            machine.power_off()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        atexit.unregister(self.close)

    def both(self, action: Callable[[Machine], object]) -> None:
        """Do something to both machines at the same time."""
        self.each(self.machines, action)

    def each(self, machines: Sequence[Machine], action: Callable[[Machine], object]) -> None:
        """Do something to some of the machines at the same time."""
        pool = ThreadPoolExecutor(len(self.machines))
        futures = [pool.submit(action, machine) for machine in machines]
        try:
            wait(futures)
        finally:
            # After a Ctrl-C, close() ends what the threads wait for: do not wait for them first.
            pool.shutdown(wait=False)
        for future in futures:
            future.result()

    def snapshot(self, name: str, *, set_clocks: bool = True) -> None:
        """Keep one instant of both machines, in place of another of that name."""
        # Both stand still before either is saved, or one would remember what the other forgot.
        self.both(Machine.pause)
        self.both(lambda machine: machine.save(name))
        self._kept.add(name)
        self.both(lambda machine: machine.resume(set_clock=set_clocks))

    def rewind(self, name: str, *, set_clocks: bool = True) -> None:
        """Put both machines back to one instant, whatever state they are in."""
        self.both(lambda machine: machine.load(name))
        self.both(lambda machine: machine.resume(set_clock=set_clocks))

    def enter(self, stage: Stage) -> None:
        """Put both machines at a stage, building it (and those before it) once a run."""
        if stage.name in self._kept:
            self.rewind(stage.name)
            if stage.settled is not None:
                stage.settled(self)
            return
        if stage.parent is not None:
            self.enter(stage.parent)
        stage.build(self)
        self.snapshot(stage.name)

    def cut_link(self) -> None:
        """Break the Internet between the machines; both keep their addresses."""
        for machine in self.machines:
            machine.set_link(False)

    def mend_link(self) -> None:
        """Bring the Internet back."""
        for machine in self.machines:
            machine.set_link(True)
