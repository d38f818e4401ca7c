"""The command line: one module a verb, each imported only when it is the one that was asked for."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ..errors import ExitCode, OffsiteError, SystemFailed

VERBS = {
    "status": "what a person wants to know about each resource, worst first",
    "invite": "on the server: make the file that lets a backup join",
    "join": "on the backup: enrol with that file",
    "adopt": "take over, while it runs, what was set up by hand with drbdadm and OpenVPN",
    "add": "on the server: replicate a volume",
    "export-seed": "on the server: write a volume to a file that carries its first copy to the backup on a disk",
    "grow": "on the server: enlarge a resource on both machines, while it is in use",
    "remove": "on the server: make a plain volume of a resource again",
    "set": "on the server: change a resource's priority, resync rate or alerts on both machines, while it is in use",
    "measure-link": "on the server: measure how fast the line to the backup is, and whether its configured speed fits",
    "rename": "on the server: give a resource another name on both machines",
    "replace-backup": "on the server: give another machine, which has joined in the backup's place, every copy anew",
    "up": "attach, promote (on the server) and connect",
    "down": "take resources down; their data stays where it is",
    "connect": "connect, and lift the hold that disconnect has set",
    "disconnect": "stop replicating until connect",
    "hold": "leave resources to a person who works on them by hand, until up",
    "failover": "on the backup: serve from here what the server serves no more",
    "failback": "the server serves again, with whatever is newer",
    "switchover": "the other machine serves it, with both alive and nothing lost",
    "verify": "on the server: compare the two copies while they are in use",
    "drill": "on the backup: test on a snapshot whether the copies could be used after a disaster",
    "check": "status for Nagios, Icinga and what takes their plugins; has exit codes of its own",
    "metrics": "what there is to know of each resource in figures, as Prometheus reads them",
    "plan": "what the circle would do now, and why; changes nothing",
    "events": "what happened, newest last",
    "history": "how far each copy is behind, whether it will catch up, and how that was over a while",
    "render": "write what follows from the configuration",
    "doctor": "check everything that must hold",
    "test-alert": "send a test to everybody who gets the alerts",
    "configure": "write the package's answers (from standard input) to the configuration",
    "watch": "react to volumes and tunnels that appear; run by systemd",
    "mark": "ask the peer up to when its copies have everything; run by systemd",
    "turn": "take a step of a failback or switchover for the peer; run by systemd",
    "files": "share a look at a copy with the peer; run by systemd",
    "deliver": "hand out the alerts that wait; run by systemd",
    "peer-service": "answer one request of the peer; run by sshd",
    "peer-files": "carry what rsync says to the peer and back; run by rsync",
}
"""In the order of ``--help``. A module's name is its verb's, with "_" for "-"."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is an `ExitCode`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o077)
    try:
        return _run(arguments)
    except OffsiteError as error:
        complain(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python's own flush at the end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except OSError as error:
        complain(SystemFailed(error))
        return ExitCode.FAILED
    except KeyboardInterrupt:
        print("Interrupted. Running the same command again goes on from here.", file=sys.stderr)
        return 130


def complain(error: OffsiteError) -> None:
    print(f"drbd-offsite: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)


def _run(arguments: list[str]) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), "")
    parser = build([verb] if verb in VERBS else list(VERBS))
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise OffsiteError("drbd-offsite needs to be root: it reads block devices and key files.", "Try it with sudo.")
    from .. import run

    run.verbose = options.verbose
    code: int = module(options.verb).run(options)
    return code


def build(verbs: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of ``verbs`` only: every verb's would have to be imported."""
    parser = argparse.ArgumentParser(
        prog="drbd-offsite",
        description="Off-site replication of LVM volumes with DRBD through an encrypted tunnel.",
        epilog="drbd-offsite(8) describes every command and exit code.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in verbs:
        command = commands.add_parser(verb, help=VERBS[verb], description=_sentence(VERBS[verb]))
        command.add_argument("-v", "--verbose", action="store_true", help="show each program that is run")
        module(verb).arguments(command)
    return parser


def module(verb: str) -> ModuleType:
    return importlib.import_module("." + verb.replace("-", "_"), __name__)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"drbd-offsite {version('drbd-offsite')}")
        parser.exit()
