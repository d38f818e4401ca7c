"""Carrying out an operation that was begun: every run, also the one after a crash, is the same walk."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import config, journal
from ..errors import OffsiteError
from ..execute import execute
from ..host import look_again, survey
from ..model import Site
from ..observed import Host, Operation
from ..plan.actions import Action, Run, describe
from ..tools import lvm

LOOK_SECONDS = 0.5

STEPS = 60
"""Far more than any operation has; a machine that does not change under our hands ends the run."""

Steps = Callable[[Site, Host, Operation], Iterator[Action]]
"""What is left to do, in order; only the first is carried out before the next look."""

Answered = Callable[[Operation, Any], Mapping[str, object]]
"""What to note of the peer's answer, of the kind that belongs to the request, among the operation's parameters."""


def drive(
    operation: Operation,
    steps: Steps,
    tell: Callable[[str], None],
    answered: Answered = lambda _, __: {},
    patience: float = 0.0,
) -> None:
    """Look, take the first step that is left, look again, until none is; then the operation is over.

    What a step has done may take ``patience`` seconds to show.
    """
    previous: Action | None = None
    host: Host | None = None
    for _ in range(STEPS):
        site = config.load()
        # LVM's part of the look is the slow one, and only our own steps change it here.
        stale = host is None or (isinstance(previous, Run) and previous.argv[0] in lvm.CHANGES)
        host = _clear(survey(site) if host is None or stale else look_again(site, host))
        action = next(steps(site, host, operation), None)
        until = time.monotonic() + patience
        while action is not None and action == previous and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            host = _clear(look_again(site, host))
            action = next(steps(site, host, operation), None)
        if action is None:
            journal.end(operation)
            return
        if action == previous:
            raise OffsiteError(
                f"This step was carried out and had no effect: {describe(action)}",
                "drbd-offsite doctor looks for the reason; the same command goes on from here.",
            )
        tell(describe(action))
        answer = execute(action, site)
        if answer is not None:
            noted = answered(operation, answer)
            journal.begin(operation.verb, operation.resource, {**operation.parameters, **noted})
        operation = journal.operations()[operation.key]
        previous = action
    raise OffsiteError("There is no end to the steps of this operation.", "Report this with drbd-offsite events.")


def _clear(host: Host) -> Host:
    """Raises OffsiteError for a look that does not show what is left to do."""
    if host.blind or not host.groups:
        raise OffsiteError(
            f"What is left to do cannot be seen: {'; '.join(host.problems)}.",
            "Nothing more was changed; once that is put right, the same command goes on from here.",
        )
    return host
