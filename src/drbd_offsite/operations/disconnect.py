"""Ending the connection of a resource."""

import time

from ..errors import ToolFailed
from ..host import observe
from ..model import Site
from ..observed import ConnectionState
from ..run import run
from ..tools import drbd

TRIES = 5
"""Two machines that leave at the same instant refuse each other (drbdsetup: -10, refused by peer node)."""


def disconnect(site: Site, name: str) -> None:
    """The peer agrees first, after the data that is on its way to it (drbd_receiver.c). Raises ToolFailed.

    drbdadm gives drbdsetup 5 seconds, and a peer that is slow to agree takes longer: what counts is the state.
    """
    complaint = ""
    for _ in range(TRIES):
        try:
            complaint = run(drbd.adm("disconnect", name), accept=None).complaint
        except ToolFailed as error:
            complaint = error.message
        seen = observe(site).drbd.get(name)
        if seen is None or seen.connection is None or seen.connection.state is ConnectionState.STANDALONE:
            return
        time.sleep(1.0)
    raise ToolFailed(f"{name} could not be disconnected: {complaint}.")
