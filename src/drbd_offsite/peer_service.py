"""The peer's one request, from sshd's standard input to standard output; or many, or its half of a stream of bytes.

Which peer it is, and whether it holds its own key or only an invitation's, is in the command that
authorized_keys fixes for the key; nothing that the peer sends can change it.
"""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime

from . import config, journal, messages, protocol
from .errors import BadRequest, ExitCode, OffsiteError, SystemFailed
from .model import Site
from .operations.report import report
from .reconcile import reconcile


def serve(peer: str, enrolling: bool) -> int:
    """Answer one request, or one a line; an error is an answer too."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    name = protocol.shared_files(command)
    if name is not None:
        return _files(peer, enrolling, name)
    if command in (protocol.TAKE, protocol.GIVE):
        return _measure(peer, enrolling, gives=command == protocol.GIVE)
    if command == protocol.LINES:
        while line := sys.stdin.buffer.readline(protocol.MAX_BYTES + 1):
            code = _serve_one(peer, enrolling, line)
            sys.stdout.write("\n")
            sys.stdout.flush()
            if code != ExitCode.DONE:
                return code
        return ExitCode.DONE
    return _serve_one(peer, enrolling, sys.stdin.buffer.read(protocol.MAX_BYTES + 1))


def _serve_one(peer: str, enrolling: bool, message: bytes) -> int:
    try:
        request = protocol.decode_request(message.decode("utf-8", errors="replace"))
        answer = _answer(config.load(), peer, enrolling, request)
    except OffsiteError as error:
        _note(peer, error)
        return _say_no(error)
    except OSError as error:
        return _say_no(SystemFailed(error))
    sys.stdout.write(protocol.encode_answer(answer))
    return ExitCode.DONE


def _files(peer: str, enrolling: bool, name: str) -> int:
    """Between the peer's rsync and the one here; what is said of errors it prints."""
    try:
        site = config.load()
        _its_own_key(site, peer, enrolling)
        from .operations import share

        share.relay(site, peer, name, sys.stdin.fileno(), sys.stdout.fileno())
    except OffsiteError as error:
        _note(peer, error)
        sys.stderr.write(f"{error.message} {error.hint}\n")
        return error.exit_code
    return ExitCode.DONE


def _measure(peer: str, enrolling: bool, *, gives: bool) -> int:
    """Take part in measuring the line: answers a line each, and bytes between them."""
    try:
        site = config.load()
        _its_own_key(site, peer, enrolling)
        from .operations import measure

        for answer in measure.take_part(site, peer, sys.stdin.fileno(), sys.stdout.fileno(), gives=gives):
            sys.stdout.write(f"{protocol.encode_answer(answer)}\n")
            sys.stdout.flush()
    except ConnectionError:  # nobody is left to be told
        return ExitCode.FAILED
    except (OffsiteError, OSError) as error:
        said = error if isinstance(error, OffsiteError) else SystemFailed(error)
        _note(peer, said)
        code = _say_no(said)
        sys.stdout.write("\n")
        return code
    return ExitCode.DONE


def _its_own_key(site: Site, peer: str, enrolling: bool) -> None:
    _known(site, peer)
    if enrolling:
        raise BadRequest("An invitation's key may enrol and nothing else.")


def _note(peer: str, error: OffsiteError) -> None:
    if isinstance(error, BadRequest):
        with suppress(OSError):  # a full disk: the peer gets its answer all the same
            journal.record("bad-request", "", f"A request of {peer} was refused: {error}")


def _known(site: Site, peer: str) -> None:
    if peer not in site.peers:
        raise BadRequest(f"There is no peer {peer} in the configuration here.")


def _say_no(error: OffsiteError) -> int:
    sys.stdout.write(protocol.encode_error(error))
    return error.exit_code


def _answer(site: Site, peer: str, enrolling: bool, request: messages.Request) -> messages.Answer:
    _known(site, peer)
    if enrolling != isinstance(request, messages.Enrol):
        raise BadRequest("An invitation's key may enrol and nothing else, and no other key may.")
    match request:
        case messages.Report():
            return report(site, peer)
        case messages.Marks():
            from .operations import marks

            return marks.pass_by(site, peer, request)
        case messages.Connect() | messages.Stand() | messages.Take() | messages.Share() | messages.Unshare():
            return _as_it_runs(site, peer, request)
        case messages.Replicate():
            from .operations import half

            return half.replicate(site, peer, request)
        case messages.Enlarge():
            from .operations import grow

            return grow.enlarge(site, peer, request)
        case messages.Release():
            from .operations import remove

            return remove.release(site, peer, request)
        case messages.Tune() | messages.SetSpeed():
            return _tune(site, peer, request)
        case messages.Rename():
            from .operations import rename

            return rename.follow(site, peer, request)
        case messages.Hello() | messages.Enrol():
            from .operations import enrol

            if isinstance(request, messages.Hello):
                return enrol.hello(site, peer)
            return enrol.enrol(site, peer, request, datetime.now(UTC))


def _tune(site: Site, peer: str, request: messages.Tune | messages.SetSpeed) -> messages.Done:
    from .operations import speed, tune

    if isinstance(request, messages.SetSpeed):
        return speed.follow(site, peer, request)
    return tune.tune(site, peer, request)


def _as_it_runs(
    site: Site,
    peer: str,
    request: messages.Connect | messages.Stand | messages.Take | messages.Share | messages.Unshare,
) -> messages.Stance | messages.Done:
    """What changes no configuration."""
    if isinstance(request, messages.Connect):
        return _connect(site, peer, request.name)
    if isinstance(request, messages.Share | messages.Unshare):
        from .operations import share

        return share.answer(site, peer, request)
    from .operations import turn

    return turn.answer(site, peer, request)


def _connect(site: Site, peer: str, name: str) -> messages.Done:
    protocol.resource_of(site, peer, name)
    for outcome in reconcile(site, [name], lambda _: None):
        if outcome.failed:
            raise outcome.failed
    return messages.Done()
