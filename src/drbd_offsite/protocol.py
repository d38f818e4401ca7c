"""What two machines say to each other: one JSON request, one JSON answer, and nothing else.

The peer is not trusted. A message with a word too many, a word too few, a wrong type or a value out of
range is a BadRequest as a whole, and whoever reads it has changed nothing by then.
"""

import dataclasses
import json
from typing import Any, TypeVar, get_args

from . import messages, wire
from .errors import BadRequest, ExitCode, Held, OffsiteError, PeerUnreachable, Refused
from .model import RESOURCE_NAME, Resource, Site

_A = TypeVar("_A")

VERSION = 1
MAX_BYTES = 65536
"""Of a request or an answer."""

FILES = "files"
"""In the place of a request, as the command for sshd and with a resource's name: the bytes that rsync exchanges."""
TAKE, GIVE = "measure take", "measure give"
"""In the place of a request, as the command for sshd: take the bytes that come and count them, or give some. The answer
to it is a line, some bytes are sent back as they come (the round trip), and then the bytes that are counted follow.
"""
LINES = "lines"
"""In the place of a request, as the command for sshd: a request a line, and its answer a line, until the input ends."""

_REQUESTS: dict[str, type[Any]] = {request.VERB: request for request in get_args(messages.Request)}
_ERRORS: dict[int, type[OffsiteError]] = {
    ExitCode.REFUSED: Refused,
    ExitCode.PEER_UNREACHABLE: PeerUnreachable,
    ExitCode.HELD: Held,
}


def resource_of(site: Site, requester: str, name: str) -> Resource:
    """The resource that a peer's request names. Raises BadRequest for one that is not replicated with that peer."""
    resource = site.resources.get(name)
    if resource is None or resource.peer != requester:
        raise BadRequest(f"{requester} has no resource {name} here.")
    return resource


def shared_files(command: str) -> str | None:
    """Of which resource that command asks for the files; None for any other command."""
    word, _, name = command.partition(" ")
    return name if word == FILES and RESOURCE_NAME.match(name) else None


def encode_request(request: messages.Request) -> str:
    return json.dumps({"version": VERSION, "verb": request.VERB, **dataclasses.asdict(request)})


def decode_request(text: str) -> messages.Request:
    """Raises BadRequest."""
    message = _message(text)
    verb = message.pop("verb", None)
    if not isinstance(verb, str) or verb not in _REQUESTS:
        raise BadRequest("The request's verb is none that is known here.")
    request: messages.Request = wire.decode(_REQUESTS[verb], message, verb)
    return request


def encode_answer(answer: messages.Answer) -> str:
    return json.dumps({"version": VERSION, "answer": dataclasses.asdict(answer)})


def encode_error(error: OffsiteError) -> str:
    body = {"exit_code": int(error.exit_code), "message": error.message, "hint": error.hint}
    return json.dumps({"version": VERSION, "error": body})


def decode_answer(kind: type[_A], text: str) -> _A:
    """The answer of the expected kind. Raises the peer's own error, or BadRequest."""
    message = _message(text)
    if "error" in message:
        raise _error(message["error"])
    answer = message.pop("answer", None)
    if message or not isinstance(answer, dict):
        raise BadRequest("The peer's answer has not the form that is agreed on.")
    return wire.decode(kind, answer, "answer")


def _error(body: object) -> OffsiteError:
    form = {"exit_code": int, "message": str, "hint": str}
    if not isinstance(body, dict) or {key: type(value) for key, value in body.items()} != form:
        return BadRequest("The peer reports an error in a form that is not agreed on.")
    kind = _ERRORS.get(body["exit_code"], OffsiteError)
    return kind(f"The peer says: {printable(body['message'])}", printable(body["hint"]))


def printable(text: str) -> str:
    """A peer's text must not be able to steer our terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:2000])


def _message(text: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise BadRequest(f"The message is longer than {MAX_BYTES} bytes.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The message is not JSON.") from error
    if not isinstance(message, dict):
        raise BadRequest("The message is not a JSON object.")
    version = message.pop("version", None)
    if version != VERSION or type(version) is not int:
        raise BadRequest(
            f"The message is not of version {VERSION} of the protocol.",
            "Install the same version of drbd-offsite on both machines.",
        )
    return message
