"""What is rendered for each kind of site, as it is kept in tests/data/golden.

    PYTHONPATH=src:tests /usr/bin/python3 -m unit.golden

writes all of it anew; what has changed is then in the diff for a person to read.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from drbd_offsite.model import Flavour, MetadataPlace, Resource, Site, TunnelMode, VolumeName
from drbd_offsite.render import Credentials, Rendered, render

from . import make

DIRECTORY = Path(__file__).parents[1] / "data/golden"
OTHER_FINGERPRINT = ":".join(["CD"] * 32)
WIREGUARD_KEY = "A" * 43 + "="
ENROLLED = Credentials(make.SECRET, (make.FINGERPRINT,), ssh_key=make.SSH_KEY)


def large() -> Resource:
    """Above 4 TiB: with metadata of its own; and its numbers differ on the two sides."""
    own = MetadataPlace(VolumeName("local", "large_drbd_meta"), None)
    here = replace(make.replica(1, "large"), metadata=own)
    there = replace(
        make.replica(7, "copy-of_large", group="v-g"), metadata=replace(own, volume=VolumeName("v-g", "m+x"))
    )
    return Resource("large", "", here, there)


def site(flavour: Flavour) -> Site:
    return make.site(
        flavour, {"test_a": make.resource(peer=flavour.other), "large": replace(large(), peer=flavour.other)}
    )


def bare(flavour: Flavour, mode: TunnelMode = TunnelMode.OPENVPN, dials: Flavour = Flavour.BACKUP) -> Site:
    """Nothing replicated yet: what the tunnel looks like."""
    return make.site(flavour, (), replace(make.TUNNEL, mode=mode, dials=dials))


@dataclass(frozen=True)
class Scene:
    site: Site
    credentials: Mapping[str, Credentials] = field(default_factory=dict)

    def render(self, hostname: str = "") -> tuple[Rendered, ...]:
        return render(self.site, self.credentials, hostname or f"{self.site.flavour}.example.org")


SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
INVITING = replace(ENROLLED, fingerprints=(OTHER_FINGERPRINT,), ssh_key="", enrol_key="ssh-ed25519 " + "B" * 68)
STATIC = replace(ENROLLED, fingerprints=())
WIREGUARD = replace(ENROLLED, fingerprints=(WIREGUARD_KEY,))
SCENES = {
    "server": Scene(site(SERVER), {"backup": ENROLLED}),
    "backup": Scene(site(BACKUP), {"server": ENROLLED}),
    "server-battery-backed": Scene(replace(site(SERVER), battery_backed_cache=True), {"backup": ENROLLED}),
    "server-that-dials": Scene(bare(SERVER, dials=SERVER), {"backup": ENROLLED}),
    "backup-that-is-dialled": Scene(bare(BACKUP, dials=SERVER), {"server": ENROLLED}),
    "server-with-an-open-invitation": Scene(bare(SERVER), {"backup": INVITING}),
    "backup-that-is-invited": Scene(bare(BACKUP), {"server": replace(ENROLLED, invited=True)}),
    "server-static-key": Scene(bare(SERVER, TunnelMode.STATIC_KEY), {"backup": STATIC}),
    "backup-static-key": Scene(bare(BACKUP, TunnelMode.STATIC_KEY), {"server": STATIC}),
    "server-wireguard": Scene(bare(SERVER, TunnelMode.WIREGUARD), {"backup": WIREGUARD}),
    "backup-wireguard": Scene(bare(BACKUP, TunnelMode.WIREGUARD), {"server": WIREGUARD}),
    "server-private-line": Scene(bare(SERVER, TunnelMode.NONE), {"backup": ENROLLED}),
    "server-before-any-invitation": Scene(bare(SERVER)),
}


def kept(scene: str) -> dict[str, str]:
    """The files of a scene as they are kept, by path on the machine."""
    home = DIRECTORY / scene
    return {f"/{path.relative_to(home)}": path.read_text() for path in home.rglob("*") if path.is_file()}


def write() -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    for name, scene in SCENES.items():
        for file in scene.render():
            path = DIRECTORY / name / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)


if __name__ == "__main__":
    write()
