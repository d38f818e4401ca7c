"""Getting a resource's filesystem out of use."""

import time

from ..host import observe
from ..model import Resource, Site
from ..run import run
from ..tools import filesystem

UNMOUNT_SECONDS = 30.0
"""With CATCH_UP_SECONDS well below the unit's TimeoutStopSec (operations/down.py)."""


def unmount(site: Site, resource: Resource) -> tuple[str, ...]:
    """Unmount it wherever it is mounted; what still uses it has a moment to end. Where it is mounted after that."""
    until = time.monotonic() + UNMOUNT_SECONDS
    while mounted := observe(site).mounted_at(resource.here.minor):
        if run(filesystem.unmount(mounted[-1]), accept=None).returncode:
            if time.monotonic() >= until:
                break
            time.sleep(0.5)
    return mounted
