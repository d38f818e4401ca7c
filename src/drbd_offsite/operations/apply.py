"""Configuration to files on disk."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from .. import config, files, keys
from ..execute import execute
from ..model import Site
from ..plan.actions import WriteFile
from ..plan.half import outdated
from ..render import Rendered, render
from ..run import run
from ..tools import systemd

RUNNING_SYSTEMD = Path("/run/systemd/system")
"""Not there where a machine's image is being built; nothing has to be told then (sd_booted(3))."""


def wanted(site: Site) -> tuple[Rendered, ...]:
    """Every file that the site asks for now."""
    return render(site, keys.credentials(site), os.uname().nodename)


def current(paths: tuple[str, ...]) -> dict[str, str]:
    """Those of the files that are there, by path."""
    texts = {path: files.read(Path(path)) for path in paths}
    return {path: text for path, text in texts.items() if text is not None}


def apply(site: Site) -> list[str]:
    """Write the files that differ; returns their paths. Nothing that runs is restarted."""
    changed = _outdated(site)
    for action in changed:
        execute(action, site)
    paths = [action.path for action in changed]
    if RUNNING_SYSTEMD.exists() and any(path.startswith("/etc/systemd/") for path in paths):
        run(systemd.DAEMON_RELOAD)
    return paths


def outdated_files(site: Site) -> list[str]:
    """The files that `apply` would write."""
    return [action.path for action in _outdated(site)]


def _outdated(site: Site) -> list[WriteFile]:
    rendered = wanted(site)
    return list(outdated(rendered, current(tuple(file.path for file in rendered))))


def difference(site: Site) -> str:
    """What `apply` would change, as a unified diff; secrets are not shown."""
    rendered = wanted(site)
    now = current(tuple(file.path for file in rendered))
    lines: list[str] = []
    for file in rendered:
        before, after = (_masked(text).splitlines(keepends=True) for text in (now.get(file.path, ""), file.text))
        lines += difflib.unified_diff(before, after, file.path, f"{file.path} (rendered)")
    return "".join(lines)


def _masked(text: str) -> str:
    return "".join(
        line.split('"')[0] + '"…";\n' if line.lstrip().startswith("shared-secret") else line
        for line in text.splitlines(keepends=True)
    )


def save(changes: Mapping[str, str | None]) -> Site:
    """Change the configuration file if the result is valid (ConfigError); returns what it says now."""
    text = config_text()
    changed = config.updated(text, changes)
    site = config.parse(changed)
    if changed != text:
        execute(WriteFile(str(config.PATH), changed, 0o644, "the configuration has changed"), site)
    return site


def config_text() -> str:
    """The configuration file as it is, known to be valid (NotConfigured, ConfigError)."""
    config.load()
    return config.PATH.read_text(encoding="utf-8")
