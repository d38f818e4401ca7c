import socket
from pathlib import Path

import pytest

from drbd_offsite import config, watch
from drbd_offsite.errors import ConfigError, Refused
from drbd_offsite.reconcile import Outcome

from . import make


def outcomes(monkeypatch: pytest.MonkeyPatch, *found: Outcome) -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []

    def reconcile(site: object, names: object, tell: object, **options: object) -> list[Outcome]:
        del tell
        calls.append({"site": site, "names": list(names), **options})
        return list(found)

    monkeypatch.setattr(watch, "reconcile", reconcile)
    return calls


def test_a_look_is_the_circle_for_every_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = outcomes(monkeypatch, Outcome("test_a", (), "nothing to do"))
    config.PATH.write_text(make.CONFIG)
    assert watch._look() is False
    assert calls[0]["names"] == ["test_a"]
    assert calls[0]["wait"] == 0, "what somebody works on is left to them"


def test_what_comes_without_an_event_is_looked_at_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes(monkeypatch, Outcome("a", (), "x"), Outcome("b", (), "no address yet", soon=True))
    config.PATH.write_text(make.CONFIG)
    assert watch._look() is True


def test_a_failure_is_logged_and_the_watch_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes(monkeypatch, Outcome("a", (), "x", failed=ConfigError("it broke.", "mend it")))
    config.PATH.write_text(make.CONFIG)
    assert watch._look() is False
    assert "a: it broke. mend it" in capsys.readouterr().err


def test_a_resource_that_is_being_worked_on_is_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes(monkeypatch, Outcome("a", (), "x", soon=True, failed=Refused("busy", "")))
    config.PATH.write_text(make.CONFIG)
    watch._look()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [None, "[site]\nnonsense", "[site]\nflavour = judge"])
def test_a_configuration_with_a_mistake_does_not_end_the_watch(
    text: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = outcomes(monkeypatch)
    if text:
        config.PATH.write_text(text)
    assert watch._look() is False
    assert calls == []
    assert capsys.readouterr().err


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@drbd-offsite-test-{tmp_path}"[:100] if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        watch._notify("READY=1")
        assert line.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    watch._notify("READY=1")


class News:
    """A socket with so many messages, and how it ends."""

    def __init__(self, count: int, end: OSError) -> None:
        self.count, self.end = count, end

    def recv(self, _: int) -> bytes:
        if not self.count:
            raise self.end
        self.count -= 1
        return b"x"


class Events:
    def __init__(self, count: int) -> None:
        self.count = count

    def poll(self, timeout: float) -> object:
        assert timeout == 0
        self.count -= 1
        return object() if self.count >= 0 else None


@pytest.mark.parametrize("end", [BlockingIOError(), OSError(105, "No buffer space available")], ids=["empty", "lost"])
def test_a_burst_of_news_is_one_look(end: OSError) -> None:
    events, news = Events(40), News(7, end)
    watch._drain(events, news)
    assert events.count == -1
    assert news.count == 0


def test_the_kernel_s_news_of_addresses_can_be_heard() -> None:
    try:
        news = watch._address_news()
    except PermissionError:
        pytest.skip("no netlink in this sandbox")
    with news, pytest.raises(BlockingIOError):
        news.recv(1)
