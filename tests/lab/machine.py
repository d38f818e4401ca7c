"""One machine of the lab: a QEMU process, its monitor, and the way in over ssh."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from . import qemu
from .qmp import Qmp, QmpError
from .ssh import CommandFailedError, Result, Ssh, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .image import Image

# Ten times what an idle two-core host without KVM takes: a busy one must not look like a hang.
BOOT_SECONDS = 240.0
BOOT_TRIES = 3

# QEMU is told to end with the *thread* that starts it: this one lives as long as the process.
_STARTER = ThreadPoolExecutor(1)


class DeadlinePassedError(AssertionError):
    """What a test waited for did not come."""


class Machine:
    """A Debian machine that can be broken, cut off, killed and rewound."""

    def __init__(self, name: str, peer: str, image: Image, run_dir: Path, *, detach: bool = False) -> None:
        """Make the disks; ``detach`` lets QEMU outlive this process."""
        self.name = name
        self.console = run_dir / f"{name}.console"
        self._detach = detach
        self._process: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._monitor = run_dir / f"{name}.qmp"
        self._log = run_dir / f"{name}.qemu.log"
        self._link_up = True
        self._link_up_at: dict[str, bool] = {}
        self.ssh = Ssh(name, qemu.free_port(), image.key, run_dir)
        disks = qemu.make_disks(name, image, run_dir)
        self._argv = qemu.command(name, peer, image, run_dir, disks, self.ssh.port)

    # -- power ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The QEMU process, or None while the machine is off."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def qmp(self) -> Qmp:
        """QEMU's monitor; only while the machine is on."""
        if self._qmp is None:
            raise UnreachableError(f"{self.name} is off")
        return self._qmp

    def launch(self, *, loadvm: str = "") -> None:
        """Start QEMU and wait for nothing; with ``loadvm`` it is left paused in that snapshot."""
        argv = [*self._argv, "-S", "-loadvm", loadvm] if loadvm else self._argv
        if not self._detach:
            argv = ["setpriv", "--pdeathsig", "TERM", *argv]
        self._monitor.unlink(missing_ok=True)
        self._process = _STARTER.submit(self._popen, argv).result()
        try:
            self._qmp = Qmp(self._monitor)
        except QmpError as error:
            raise UnreachableError(f"{self.name}: QEMU does not start\n{self._qemu_log()}") from error
        # A snapshot brings its own; a machine that was off keeps what was done to its cable.
        if loadvm:
            self._link_up = self._link_up_at[loadvm]
        else:
            self.set_link(self._link_up)

    def _popen(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the test run, which then ends QEMU in order.
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def start(self) -> None:
        """Switch the machine on and wait until it has booted."""
        self.launch()
        self.await_boot()

    def power_off(self) -> None:
        """Pull the plug: what the guest had not written to its disks is lost."""
        self.ssh.disconnect()
        if self._process is None:
            return
        # quit and not SIGKILL: with cache=unsafe that could tear the qcow2 files themselves.
        with suppress(Exception):
            self.qmp.execute("quit")
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._qmp is not None:
            self._qmp.close()
        self._process = self._qmp = None

    def reset(self) -> None:
        """Push the reset button, and wait for the new boot."""
        self.qmp.execute("system_reset")
        self.ssh.disconnect()
        self.await_boot()

    def reboot(self) -> None:
        """Reboot in order, and wait for the new boot."""
        old = self.boot_id()
        with suppress(UnreachableError):
            self.run("systemctl reboot", check=False)
        self.ssh.disconnect()
        self.await_boot(after=old)

    def boot_id(self) -> str:
        """What the kernel calls this boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def await_boot(self, *, after: str = "") -> None:
        """Wait until a boot (not the one called ``after``) is done.

        A kernel that panics starts again by itself (panic=1); one that hangs is reset.
        """
        for _ in range(BOOT_TRIES):
            end = time.monotonic() + BOOT_SECONDS
            while time.monotonic() < end:
                if self.pid is None:
                    raise UnreachableError(f"{self.name}: QEMU ended\n{self._qemu_log()}")
                with suppress(UnreachableError):
                    if self.boot_id() != after:
                        self.run("systemctl is-system-running --wait", check=False, timeout=300)
                        self.set_clock()
                        return
                self.ssh.disconnect()
                time.sleep(1)
            self.qmp.execute("system_reset")
        tail = self.console.read_text(errors="replace")[-3000:]
        raise UnreachableError(f"{self.name} does not boot:\n{tail}")

    # -- snapshots -----------------------------------------------------------------------------

    def rewind(self, name: str) -> None:
        """Put memory and disks back to a snapshot, whatever state the machine is in."""
        self.load(name)
        self.resume()

    def pause(self) -> None:
        """Stop the guest's time."""
        # The snapshot must not hold a half of an ssh connection whose other half is gone.
        self.ssh.disconnect()
        self.qmp.execute("stop")

    def save(self, name: str) -> None:
        """Write a snapshot of the paused machine."""
        self.qmp.human(f"savevm {name}")
        self._link_up_at[name] = self._link_up

    def load(self, name: str) -> None:
        """Load a snapshot and leave the machine paused in it."""
        # Not loadvm in place: under TCG that keeps the processor's tick counter, the guest's
        # monotonic clock leaps by all the time since the snapshot, and every timeout of DRBD
        # and OpenVPN fires at once. A new QEMU is as fast.
        self.power_off()
        self.launch(loadvm=name)

    def resume(self, *, set_clock: bool = True) -> None:
        """Let the guest's time go on, and tell it what time it is; otherwise it does not notice that it stood still."""
        self.qmp.execute("cont")
        self.wait_for("ssh after a pause", lambda: self.run("true"), 60)
        if set_clock:
            self.set_clock()

    def set_clock(self) -> None:
        """Tell the guest what time it is."""
        self.run(f"date --utc --set=@{time.time():.3f}")

    # -- inside --------------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        input: str | bytes = b"",  # noqa: A002  subprocess's own word
        timeout: float = 120.0,
    ) -> Result:
        """Run an argv, or a line for the shell, as root."""
        return self.ssh.run(command, check=check, input=input, timeout=timeout)

    def copy_to(self, source: Path, target: str) -> None:
        """Copy a file or directory of the host into the machine."""
        self.ssh.copy(str(source), f":{target}")

    def copy_from(self, source: str, target: Path) -> None:
        """Copy a file or directory of the machine to the host."""
        self.ssh.copy(f":{source}", str(target))

    def journal(self, since: float = 0.0) -> str:
        """The journal, from a moment in seconds since the epoch."""
        return self.run(f"journalctl --quiet --no-pager --output=short-iso --since=@{since:.3f}").stdout

    def wait_for(self, description: str, test: str | Callable[[], object], deadline: float = 60.0) -> None:
        """Wait until a shell line succeeds or a callable returns something true."""
        end = time.monotonic() + deadline
        while True:
            try:
                if isinstance(test, str):
                    result = self.run(test, check=False)
                    done, last = result.returncode == 0, f"{result.stdout}{result.stderr}"
                else:
                    answer = test()
                    done, last = bool(answer), repr(answer)
            except (CommandFailedError, UnreachableError) as error:
                done, last = False, str(error)
            if done:
                return
            if time.monotonic() > end:
                raise DeadlinePassedError(f"{self.name}: not within {deadline:g} s: {description}\nlast seen: {last}")
            time.sleep(0.3)

    # -- the Internet --------------------------------------------------------------------------

    def set_link(self, up: bool) -> None:
        """Plug this machine's Internet cable in or out."""
        self.qmp.execute("set_link", name="wan-nic", up=up)
        self._link_up = up

    def _qemu_log(self) -> str:
        return self._log.read_text(errors="replace")
