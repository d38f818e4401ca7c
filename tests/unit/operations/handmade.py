"""A machine that was set up by hand after the how-to, behind `run`; its programs print what real ones have printed."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from drbd_offsite import config, host, keys
from drbd_offsite.model import Flavour
from drbd_offsite.operations import adopt
from drbd_offsite.render import HEADER
from drbd_offsite.tools import drbd, drbd_dump, filesystem, iproute, lvm, systemd

from ..conftest import Answer, Programs

DATA = Path(__file__).parents[2] / "data"
HOWTO = DATA / "adopt/howto"
SECRET = "some-shared-secret-of-your-choice"
ENDS = {Flavour.SERVER: "10.89.33.1", Flavour.BACKUP: "10.89.33.2"}


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did."""


class HandMade:
    """Files are real, below the test's directory; DRBD runs and must never be told anything."""

    def __init__(self, flavour: Flavour, root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flavour, self.root = flavour, root
        self.etc = root / "etc"
        self.dumps = {"by hand": "howto.xml", "adopted": f"adopted-{flavour}.xml"}
        """What drbdadm prints, by whose resource file it is."""
        self.read_by: Callable[[tuple[str, ...]], Answer] = self._caught
        self.addresses = (DATA / "adopt/addresses.json").read_text().replace(ENDS[Flavour.SERVER], ENDS[flavour])
        self.units: set[str] = set()
        self.state = "up-to-date"
        """In which DRBD is seen, as the captures call it."""
        self.fresh = False
        """The page cache of the volume is what is on it."""
        self.steps = 0
        self.kill_at: int | None = None
        programs.machine = self.answer
        for name in ("DRBD_CONF", "DRBD_D", "OPENVPN"):
            monkeypatch.setattr(adopt, name, root / str(getattr(adopt, name)).lstrip("/"))
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=str(flavour)))
        for module, name in ((adopt, "execute"), (adopt.journal, "begin"), (adopt.journal, "end"), (keys, "directory")):
            monkeypatch.setattr(module, name, self._mortal(getattr(module, name)))
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        host.PROC_DRBD.write_text((DATA / f"drbd/8.4.11/up-to-date-{flavour}.proc").read_text())
        self.make()

    def make(self) -> None:
        """By hand, as the how-to says, but for the slip of its pen that no drbdadm has ever read."""
        shutil.rmtree(self.etc / "drbd.d", ignore_errors=True)
        shutil.copytree(HOWTO / "drbd.d", self.etc / "drbd.d")
        shutil.copy(HOWTO / "drbd.conf", self.etc)
        (self.etc / "openvpn").mkdir(exist_ok=True)
        shutil.copy(HOWTO / self.flavour / "server.conf", self.etc / "openvpn")
        common = self.etc / "drbd.d/global_common.conf"
        common.write_text(common.read_text().replace("csum-alg", "csums-alg"))

    def _mortal(self, really: Callable[..., object]) -> Callable[..., object]:
        """A step at which the process may be killed, before it or after it."""

        def step(*arguments: object, **options: object) -> object:
            self.steps += 1
            if self.kill_at == self.steps:
                raise Killed
            result = really(*arguments, **options)
            if self.kill_at == -self.steps:
                raise Killed
            return result

        return step

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        match argv:
            case ("env", *_) | (("/usr/lib/drbd/drbdadm-83"), *_):
                return self.read_by(argv)
            case lvm.REPORT:
                return Answer((DATA / f"lvm/replicating-{self.flavour}.json").read_text())
            case drbd.EVENTS:
                return Answer((DATA / f"drbd/8.4.11/{self.state}-{self.flavour}.events2").read_text())
            case drbd_dump.RUNNING:
                return Answer((DATA / "adopt/show.txt").read_text())
            case ("blockdev" | "blkid", *_):
                return self._on_the_volume(argv)
            case iproute.ADDRESSES:
                return Answer(self.addresses)
            case ("mv", "--no-target-directory", old, new):
                (self.root / old.lstrip("/")).replace(self.root / new.lstrip("/"))
                return Answer()
            case ("systemctl", "--no-ask-password", "is-enabled" | "is-active", "--quiet", unit):
                return Answer("", 0 if unit in self.units else 1)
            case ("systemctl", "--no-ask-password", "enable", "--now", "--no-block", unit) | (
                "systemctl",
                "--no-ask-password",
                "start",
                "--no-block",
                unit,
            ):
                self.units.add(unit)
                return Answer()
            case ("systemctl", "--no-ask-password", "disable", unit):
                self.units.remove(unit)
                return Answer()
            case systemd.DAEMON_RELOAD:
                return Answer()
        return None

    def _on_the_volume(self, argv: tuple[str, ...]) -> Answer:
        if argv == filesystem.forget_cached("/dev/local/test_a"):
            self.fresh = True
            return Answer()
        assert argv == filesystem.identity("/dev/local/test_a")
        assert self.fresh, "what is read is not what DRBD has written"
        return Answer((DATA / "blkid/lab-ext4.txt").read_text())

    def _caught(self, argv: tuple[str, ...]) -> Answer:
        """Whatever happens, drbdadm finds each resource once."""
        if argv[0] != "env":
            return Answer("", 10)
        read = {path.name: path.read_text() for path in Path(argv[argv.index("-c") + 1]).parent.glob("drbd.d/*.res")}
        ((name, text),) = (file for file in read.items() if "resource test_a" in drbd_dump.sections(file[1]))
        dumped = (DATA / "adopt" / self.dumps["adopted" if text.startswith(HEADER) else "by hand"]).read_text()
        return Answer(dumped.replace("0_test_a.res", name))

    def configure(self, text: str) -> None:
        config.PATH.write_text(text)

    def texts(self, places: Iterable[str] = ("etc", "var")) -> dict[str, str]:
        """Every file, by path; the journal's events, with their times, are not in it."""
        paths = (path for place in places for path in (self.root / place).rglob("*"))
        return {
            str(path.relative_to(self.root)): path.read_text()
            for path in paths
            if path.is_file() and path.suffix != ".jsonl"
        }
