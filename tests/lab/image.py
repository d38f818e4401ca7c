"""The disk image that all machines of the lab start from, built once and kept by content."""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

APT = Path("/etc/apt")


@dataclass(frozen=True)
class Image:
    """A kernel, an initramfs and a root disk, with the key that opens the machine."""

    kernel: Path
    initramfs: Path
    disk: Path
    key: Path


def cache_dir() -> Path:
    """Where images and the lab's ssh key are kept between runs."""
    path = Path(os.environ.get("DRBD_OFFSITE_LAB", "/var/cache/drbd-offsite-lab"))
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    return path


def ensure_image() -> Image:
    """Return the image of today's recipe, building it if no run has done so before."""
    cache = cache_dir()
    with _locked(cache / "lock"):
        key = _ensure_key(cache / "ssh_key")
        public_key = key.with_suffix(".pub").read_text()
        home = cache / f"{recipe.SUITE}-{_recipe_hash(public_key)}"
        if not home.is_dir():
            _build(home, public_key)
    return Image(home / "vmlinuz", home / "initramfs", home / "root.ext4", key)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_key(path: Path) -> Path:
    if not path.exists():
        comment = "drbd-offsite lab"
        _tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
    return path


def _recipe_hash(public_key: str) -> str:
    """Name the outcome by all that decides it: the data, this code, and who may log in."""
    digest = hashlib.sha256(public_key.encode())
    for source in (recipe.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


def _build(home: Path, public_key: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    try:
        root, product = work / "root", work / "product"
        product.mkdir()
        _bootstrap(root, work)
        _customise(root, public_key)
        shutil.copy(next(root.glob("boot/vmlinuz-*")), product / "vmlinuz")
        _pack_initramfs(root, work / "initramfs", product / "initramfs")
        _make_disk(root, product / "root.ext4")
        product.rename(home)
    finally:
        shutil.rmtree(work)


def _bootstrap(root: Path, work: Path) -> None:
    _tool(
        "mmdebstrap",
        "--variant=minbase",
        # A mirror may be a snapshot of some day; the signatures are checked all the same.
        "--aptopt=Acquire::Check-Valid-Until false",
        f"--include={','.join(recipe.PACKAGES)}",
        recipe.SUITE,
        str(root),
        *map(str, _host_sources(work)),
    )


def _host_sources(work: Path) -> Iterator[Path]:
    """Write down the host's own apt entries for the suite.

    Without any, mmdebstrap uses its default mirror.
    """
    lines = [
        line
        for path in (*APT.glob("sources.list"), *APT.glob("sources.list.d/*.list"))
        for line in path.read_text().splitlines()
        if line.startswith("deb ") and f" {recipe.SUITE}" in line and " main" in line
    ]
    stanzas = [
        stanza
        for path in APT.glob("sources.list.d/*.sources")
        for stanza in path.read_text().split("\n\n")
        if f"\nSuites: {recipe.SUITE}" in stanza and "\nComponents: main" in stanza
    ]
    for name, entries in (("host.list", lines), ("host.sources", stanzas)):
        if entries:
            separator = "\n" if name.endswith(".list") else "\n\n"
            path = work / name
            path.write_text(separator.join(entries) + "\n")
            yield path


def _customise(root: Path, public_key: str) -> None:
    for pattern in recipe.REMOVED_FILES:
        for path in root.glob(pattern.lstrip("/")):
            path.unlink()
    for name, text in recipe.FILES.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ssh = root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "authorized_keys").write_text(public_key)
    _tool("systemctl", f"--root={root}", "mask", *recipe.MASKED_UNITS)
    _tool("systemctl", f"--root={root}", "enable", "systemd-networkd.service")


def _pack_initramfs(root: Path, tree: Path, target: Path) -> None:
    modules = _modules_in_order(root)
    for name in ("bin", "dev", "proc", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for module in modules:
        (tree / "modules" / f"{_module_name(module)}.ko").write_bytes(_unpacked(module))
    (tree / "modules/order").write_text("".join(f"{_module_name(module)}.ko\n" for module in modules))
    init = tree / "init"
    init.write_text(recipe.INIT)
    init.chmod(0o755)
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"],
        cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    target.write_bytes(archive.stdout)


def _modules_in_order(root: Path) -> list[Path]:
    """The initramfs's modules, each after those it depends on."""
    (home,) = (root / "usr/lib/modules").iterdir()
    dependencies: dict[str, list[str]] = {}
    for line in (home / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        dependencies[module] = needs.split()
    paths = {_module_name(Path(module)): module for module in dependencies}
    order: list[str] = []
    for name in filter(paths.__contains__, recipe.INITRAMFS_MODULES):
        # modules.dep names the deepest dependency last
        order += [*reversed(dependencies[paths[name]]), paths[name]]
    return [home / module for module in dict.fromkeys(order)]


def _module_name(module: Path) -> str:
    return module.name.partition(".")[0]


def _unpacked(module: Path) -> bytes:
    """Debian compresses its modules from 13 on, and busybox's insmod reads them plain."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _make_disk(root: Path, target: Path) -> None:
    # -d fills the filesystem while it is made: no loop device, no mount.
    _tool("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(target), recipe.DISK_SIZE)


def _tool(*argv: str) -> None:
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}")
