import os
import stat
from pathlib import Path

import pytest

from drbd_offsite import config, keys
from drbd_offsite.errors import ConfigError, NotConfigured
from drbd_offsite.operations import apply
from drbd_offsite.tools import systemd

from .. import make
from ..conftest import Programs

SITE = make.site()


@pytest.fixture(autouse=True)
def _keys() -> None:
    keys.directory("backup")
    (keys.ROOT / "backup/drbd.secret").write_text(make.SECRET + "\n")
    (keys.ROOT / "backup/peer_ssh.pub").write_text(make.SSH_KEY + "\n")


def test_files_are_written_once_and_their_paths_told(root: Path) -> None:
    changed = apply.apply(SITE)
    assert "/etc/drbd.d/0_test_a.res" in changed
    assert all((root / path.lstrip("/")).exists() for path in changed)
    assert apply.apply(SITE) == [], "nothing differs any more"


def test_a_resource_file_names_this_machine(root: Path) -> None:
    apply.apply(SITE)
    text = (root / "etc/drbd.d/0_test_a.res").read_text()
    assert f'on "{os.uname().nodename}"' in text
    assert make.SECRET in text
    assert stat.S_IMODE((root / "etc/drbd.d/0_test_a.res").stat().st_mode) == 0o600


def test_an_edit_of_a_generated_file_is_undone_and_other_files_are_left_alone(root: Path) -> None:
    apply.apply(SITE)
    (root / "etc/drbd.d/0_test_a.res").write_text("edited\n")
    (root / "etc/drbd.d/global_common.conf").write_text("the admin's\n")
    assert apply.outdated_files(SITE) == ["/etc/drbd.d/0_test_a.res"]
    assert apply.apply(SITE) == ["/etc/drbd.d/0_test_a.res"]
    assert (root / "etc/drbd.d/global_common.conf").read_text() == "the admin's\n"


def test_systemd_is_told_of_its_own_files_alone_and_only_where_it_runs(programs: Programs, root: Path) -> None:
    apply.apply(SITE)
    assert programs.ran == [], "an image that is being built has no systemd running"
    apply.RUNNING_SYSTEMD.mkdir(parents=True)
    (root / "etc/drbd.d/0_test_a.res").unlink()
    apply.apply(SITE)
    assert programs.ran == []
    (root / "etc/systemd/system/drbd-offsite@test_a.service.d/volume.conf").unlink()
    programs.allow(systemd.DAEMON_RELOAD)
    apply.apply(SITE)
    assert programs.ran == [systemd.DAEMON_RELOAD]


def test_the_difference_changes_nothing_and_shows_no_secret(root: Path) -> None:
    shown = apply.difference(SITE)
    assert "+++ /etc/drbd.d/0_test_a.res (rendered)" in shown
    assert make.SECRET not in shown
    assert 'shared-secret "…"' in shown
    assert not (root / "etc/drbd.d").exists()
    apply.apply(SITE)
    assert apply.difference(SITE) == ""


def test_a_secret_that_has_changed_is_not_shown_either() -> None:
    apply.apply(SITE)
    (keys.ROOT / "backup/drbd.secret").write_text("f" * 48 + "\n")
    shown = apply.difference(SITE)
    assert make.SECRET not in shown
    assert "f" * 48 not in shown


def test_saving_changes_the_file_only_if_the_result_is_valid() -> None:
    config.PATH.write_text(make.CONFIG)
    assert apply.save({"peers.backup.link_speed": "50"}).peers["backup"].link_speed == 50
    saved = config.PATH.read_text()
    with pytest.raises(ConfigError):
        apply.save({"peers.backup.link_speed": "0"})
    with pytest.raises(ConfigError):
        apply.save({"resources.test_b.peer": "backup"})
    assert config.PATH.read_text() == saved


def test_saving_what_is_there_writes_nothing() -> None:
    config.PATH.write_text(make.CONFIG)
    before = config.PATH.stat().st_mtime_ns, config.PATH.stat().st_ino
    apply.save({"peers.backup.hostname": "backup"})
    assert (config.PATH.stat().st_mtime_ns, config.PATH.stat().st_ino) == before


def test_a_file_with_a_mistake_is_not_built_upon() -> None:
    with pytest.raises(NotConfigured):
        apply.save({})
    config.PATH.write_text(make.CONFIG.replace("flavour = server", "flavour = judge"))
    with pytest.raises(ConfigError):
        apply.config_text()
