"""A drill's result and how it is told. What is told is kept in tests/data/drill.

    PYTHONPATH=src:tests /usr/bin/python3 -m unit.plan.test_drill

writes it anew; what has changed is then in the diff for a person to read.
"""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.observed import ConnectionState, DiskState, ReplicationState, Role
from drbd_offsite.plan import drill
from drbd_offsite.plan.drill import Line, Result, Seen
from drbd_offsite.plan.drilled import Count, Outcome
from drbd_offsite.plan.look import Check, Source, Verdict
from drbd_offsite.render import drill_page

from .. import make

MIB = make.MIB
KEPT = Path(__file__).parents[2] / "data/drill"

LINE = Line("Connected, Established, UpToDate here", 20 * MIB, 0)
PASSED = Result(
    resource="test_a",
    hostname="backup",
    peer="server",
    volume="local/test_a",
    outcome=Outcome.PASSED,
    reason="The copy can be used: it was mounted, and all that was checked is good.",
    begun="2026-01-04T03:00:00+00:00",
    ended="2026-01-04T03:02:30+00:00",
    seconds=150,
    line_before=LINE,
    line_after=replace(LINE, received_bytes=23 * MIB),
    seen=Seen(Source.COPY, "2026-01-04T03:00:01+00:00", "2026-01-04T03:00:01+00:00", "ext4", 96 * MIB),
    checks=(
        Check("journal", Verdict.GOOD, "It was replayed or had nothing (e2fsck -p -E journal_only /dev/x)."),
        Check("filesystem", Verdict.GOOD, "It has no errors (e2fsck -f -n /dev/x).", 120),
        Check("mount", Verdict.GOOD, "It was mounted read-only."),
        Check("files", Verdict.GOOD, "301 files, 7.0 MiB. There is no earlier count to compare with.", 1),
        Check("command check-dump", Verdict.GOOD, "It says that the data is good (exit code 0).", 12, ("3 h old",)),
    ),
    count=Count(301, 7 * MIB),
)  # fmt: skip
FAILED = replace(
    PASSED,
    outcome=Outcome.FAILED,
    reason="filesystem: e2fsck -f -n /dev/x has found errors (exit code 4).",
    line_after=Line("Connecting, UpToDate here", 23 * MIB),
    seen=replace(PASSED.seen, source=Source.RESTORE_POINT, as_of="2026-01-03T21:00:01+00:00"),  # type: ignore[type-var]
    checks=(
        PASSED.checks[0],
        Check(
            "filesystem",
            Verdict.BAD,
            "e2fsck -f -n /dev/x has found errors (exit code 4).",
            7,
            (
                "Pass 1: Checking inodes, blocks, and sizes",
                "Entry '<script>alert(1)</script>' in / has bad & odd bits.",
            ),
        ),
    ),
    count=None,
)
UNTESTED = replace(
    FAILED,
    outcome=Outcome.UNTESTED,
    reason="The volume group local has 8 MiB free, and a look at local/test_a needs 20 MiB. Give it another disk.",
    line_before=Line("not up"),
    line_after=Line("not up"),
    seen=None,
    checks=(),
)
SCENES = {"passed": PASSED, "failed": FAILED, "untested": UNTESTED}


def told(result: Result) -> dict[str, str]:
    return {
        "txt": drill.as_text(result) + "\n",
        "html": drill_page(result, drill.facts(result)),
        "json": json.dumps(drill.as_json(result), indent=2) + "\n",
    }


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", ["txt", "html", "json"])
def test_it_is_told_as_it_is_kept(scene: str, kind: str) -> None:
    assert told(SCENES[scene])[kind] == (KEPT / f"{scene}.{kind}").read_text()


class Page(HTMLParser):
    """Elements that are open must be closed in their order, and nothing may be fetched."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("scene", SCENES)
def test_the_page_is_whole_and_needs_nothing_else(scene: str) -> None:
    page, text = Page(), told(SCENES[scene])["html"]
    page.feed(text)
    page.close()
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & page.seen
    assert not re.search(r"url\(|@import|https?:", text)


def test_what_a_program_said_is_no_markup() -> None:
    text = told(FAILED)["html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "bad &amp; odd" in text


def test_programs_can_read_it() -> None:
    found = json.loads(told(FAILED)["json"])
    assert (found["schema"], found["outcome"], found["seen"]["source"]) == (1, "failed", "restore point")
    assert found["age_seconds"] == 6 * 3600
    assert found["checks"][1]["verdict"] == "bad"
    assert found["received_bytes"] == 3 * MIB


def test_an_age_that_is_not_known() -> None:
    assert UNTESTED.age_seconds is None
    unknown = replace(PASSED, seen=replace(PASSED.seen, as_of=""))  # type: ignore[type-var]
    assert unknown.age_seconds is None
    assert re.search(r"data up to +not known", drill.as_text(unknown))


def test_a_connection_that_was_made_anew_begins_to_count_anew() -> None:
    assert replace(PASSED, line_after=Line("x", 1)).received_bytes is None


# -- what it comes to --------------------------------------------------------------------------------------------

GOOD, FINDING, BAD, UNKNOWN = (Check(v.name, v, f"{v}.") for v in Verdict)


@pytest.mark.parametrize(
    ("checks", "outcome", "words"),
    [
        ([], Outcome.UNTESTED, "Nothing was checked."),
        ([GOOD, GOOD], Outcome.PASSED, "can be used"),
        ([GOOD, FINDING], Outcome.WARNED, "FINDING: finding."),
        ([UNKNOWN, FINDING], Outcome.UNTESTED, "UNKNOWN: not done."),
        ([UNKNOWN, BAD, BAD], Outcome.FAILED, "BAD: bad. BAD: bad."),
    ],
)
def test_the_worst_check_counts(checks: list[Check], outcome: Outcome, words: str) -> None:
    found, reason = drill.conclude(checks, "")
    assert found is outcome
    assert words in reason


@given(st.lists(st.sampled_from([GOOD, FINDING, BAD, UNKNOWN])))
def test_without_room_no_check_counts(checks: list[Check]) -> None:
    assert drill.conclude(checks, "It was full.") == (Outcome.UNTESTED, "It was full.")
    passed = drill.conclude(checks, "")[0] is Outcome.PASSED
    assert passed == (bool(checks) and set(checks) == {GOOD})


# -- counts ------------------------------------------------------------------------------------------------------

COUNTS = st.builds(Count, st.integers(0, 10**9), st.integers(0, 10**15))


@given(COUNTS, COUNTS)
def test_less_than_a_half_is_a_finding(before: Count, now: Count) -> None:
    fewer = now.files < before.files / 2 or now.size_bytes < before.size_bytes / 2
    assert (drill.compared(before, "then", now).verdict is Verdict.FINDING) == fewer


def test_the_first_count_has_nothing_to_be_compared_with() -> None:
    check = drill.compared(None, "", Count(0, 0))
    assert check == Check("files", Verdict.GOOD, "0 files, 0 B. There is no earlier count to compare with.")


def test_far_fewer_files_are_called_so() -> None:
    check = drill.compared(Count(1000, 10 * MIB), "noon", Count(499, 10 * MIB))
    assert check.text == (
        "499 files, 10.0 MiB: far fewer files than at the last count; at noon there were 1,000 files, 10.0 MiB."
    )
    assert "far less in the files" in drill.compared(Count(9, 10 * MIB), "", Count(9, MIB)).text


# -- the line ----------------------------------------------------------------------------------------------------


def test_how_replication_goes() -> None:
    seen = make.seen(role=Role.SECONDARY, received_bytes=5)
    assert drill.line(seen, 7) == Line("Connected, Established, UpToDate here", 5, 7)
    alone = make.seen(
        role=Role.SECONDARY, disk=DiskState.OUTDATED, state=ConnectionState.STANDALONE, replication=ReplicationState.OFF
    )
    assert drill.line(alone, None) == Line("StandAlone, Outdated here")
    assert drill.line(make.seen(state=None), None).state == "StandAlone, UpToDate here"
    assert drill.line(None, None) == Line("not up")


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for name, result in SCENES.items():
        for suffix, text in told(result).items():
            (KEPT / f"{name}.{suffix}").write_text(text)
