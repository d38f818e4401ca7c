"""What is under debian/ and etc/: the parts that have to agree with each other and with the code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drbd_offsite import config, render
from drbd_offsite.operations import metrics

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"
FLAVOURS = ("server", "backup")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def output(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assembled(name: str) -> str:
    """A maintainer script as debian/rules puts it together."""
    source = DEBIAN / f"{name}.in"
    if not source.exists():
        return (DEBIAN / name).read_text()
    return re.sub(
        r"^#INCLUDE (\S+)\n", lambda m: (DEBIAN / "lib" / m[1]).read_text(), source.read_text(), flags=re.MULTILINE
    )


def templates(flavour: str) -> dict[str, dict[str, str]]:
    """The fields of each debconf template, by its name."""
    found = {}
    for paragraph in (DEBIAN / f"drbd-offsite-{flavour}.templates").read_text().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*(?:\n .*)*)", paragraph, flags=re.MULTILINE))
        found[fields["Template"]] = fields
    return found


SCRIPTS = [f"drbd-offsite-{flavour}.{kind}" for flavour in FLAVOURS for kind in ("config", "postinst", "postrm")]
SCRIPTS.append("drbd-offsite-backup.prerm")


@pytest.mark.parametrize("name", SCRIPTS)
def test_maintainer_scripts_are_plain_sh(name: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_text(assembled(name))
    output("sh", "-n", script)


@needs("shellcheck")
@pytest.mark.parametrize("name", [*SCRIPTS, "bin/peer-sshd", "tests/smoke"])
def test_shellcheck_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    script = tmp_path / Path(name).name
    script.write_text(assembled(name))
    # SC1091: debconf's own library is not checked.
    assert output("shellcheck", "--exclude=SC1091", script) == ""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_question_is_asked_and_each_answer_handed_on(flavour: str) -> None:
    asked = assembled(f"drbd-offsite-{flavour}.config")
    handed_on = assembled(f"drbd-offsite-{flavour}.postinst")
    for name, fields in templates(flavour).items():
        assert re.search(rf"{re.escape(name)}\b", asked), f"{name} is never asked"
        if fields["Type"] != "error":
            assert re.search(rf"{re.escape(name)}\b", handed_on), f"the answer to {name} is never used"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_question_and_the_configuration_have_the_same_default(flavour: str) -> None:
    defaults = {f"site.{name}": config.default_of(check) for name, _, check in config.keys("site")}
    defaults |= {f"peers.backup.{name}": config.default_of(check) for name, _, check in config.keys("peers")}
    found = templates(flavour)
    script = assembled(f"drbd-offsite-{flavour}.postinst")
    answers = re.findall(r"^ +answer (\S+) (\S+)", script, flags=re.MULTILINE)
    assert len(answers) >= 2
    for question, key in answers:
        default = found[question].get("Default", "")
        assert {"true": "yes", "false": "no"}.get(default, default) == defaults[key], question


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_is_secret_is_no_plain_text_for_debconf(flavour: str) -> None:
    """Passwords are kept in a file of mode 0600 and without a backup copy; texts are readable by all."""
    for name, fields in templates(flavour).items():
        assert (fields["Type"] == "password") == name.endswith("enrolment_text")


def test_questions_do_not_shout() -> None:
    for flavour in FLAVOURS:
        assert "!" not in (DEBIAN / f"drbd-offsite-{flavour}.templates").read_text()


@needs("msgfmt")
def test_the_german_translation_is_complete(tmp_path: Path) -> None:
    statistics = output("msgfmt", "--check", "--statistics", "-o", tmp_path / "de.mo", DEBIAN / "po/de.po")
    assert re.fullmatch(r"\d+ translated messages\.\n", statistics)


def test_purge_knows_our_files_by_the_header_that_render_writes() -> None:
    header = re.search(r"^HEADER='(.*)'$", assembled("drbd-offsite-server.postrm"), flags=re.MULTILINE)
    assert header is not None
    assert render.HEADER.startswith(header[1])


def test_purge_removes_what_the_watcher_leaves_for_node_exporter() -> None:
    """Old figures would be read for ever."""
    removed = re.search(r"^    rm -f (/var/lib/\S+)$", assembled("drbd-offsite-server.postrm"), flags=re.MULTILINE)
    assert removed is not None
    assert str(metrics.TEXTFILES / metrics.NAME).endswith(removed[1])


def test_the_version_is_only_in_the_changelog() -> None:
    version = re.match(r"drbd-offsite \(([^)]+)\)", (DEBIAN / "changelog").read_text())
    assert version is not None
    for name in ("setup.cfg", "pyproject.toml", "debian/control", "debian/rules"):
        assert version[1] not in (ROOT / name).read_text()
