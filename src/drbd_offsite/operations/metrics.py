"""A look at this machine as Prometheus reads it, and a duty of the watcher that leaves one for node_exporter."""

from datetime import UTC, datetime
from pathlib import Path

from .. import exposition, files
from ..model import Site
from ..observed import Host
from ..plan.metrics import figures

VERSION = Path(__file__).parents[1] / "VERSION"
"""Only the packages' build writes it."""

TEXTFILES = Path("/var/lib/prometheus/node-exporter")
"""Where Debian's node_exporter looks for files of others (--collector.textfile.directory)."""

NAME = "drbd-offsite.prom"


def current(site: Site, host: Host) -> str:
    """The text of a look that was taken a moment ago. Raises NoLibrary."""
    return exposition.text(figures(site, host, (files.read(VERSION) or "").strip(), datetime.now(UTC)))


def leave(site: Site, host: Host) -> None:
    """Where there is a node_exporter, and the library; nobody has to have either."""
    if not TEXTFILES.is_dir():
        return
    try:
        text = current(site, host)
    except exposition.NoLibrary:
        return
    # Another user runs node_exporter.
    files.write(TEXTFILES / NAME, text, 0o644)
