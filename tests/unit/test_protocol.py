import dataclasses
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import messages, protocol
from drbd_offsite.errors import BadRequest, Held, OffsiteError, PeerUnreachable, Refused
from drbd_offsite.model import LINK_SPEEDS, TUNABLE

from . import make

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True)
LV = st.from_regex(r"[A-Za-z0-9+_][A-Za-z0-9+_.-]{0,20}", fullmatch=True)
WORD = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
SIZE = st.integers(1, 2**60)
HOSTNAME = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?(?:\.[a-z0-9]{1,9})?", fullmatch=True)
HALF = st.builds(
    messages.Half,
    st.builds("{}/{}".format, LV, LV),
    st.builds("{}/{}{}".format, LV, LV, st.sampled_from(["", "[0]", "[17]", "[9999]"])),
    st.integers(0, 1048575),
    st.integers(1, 65535),
)
INSTANT = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
SSH_KEY = st.from_regex(r"ssh-ed25519 [A-Za-z0-9+/]{68}", fullmatch=True)
END = st.from_regex(r"10\.89\.33\.[0-9]{1,3}:[0-9]{1,5}|\[fd00::[0-9a-f]{1,4}\]:[0-9]{1,5}", fullmatch=True)
PLACE = st.builds(messages.Place, END, END, st.integers(0, 2**64))
MARK = st.builds(messages.Mark, NAME, INSTANT, st.lists(PLACE, max_size=3))
REQUESTS = st.one_of(
    st.builds(
        messages.Marks, st.lists(st.builds(messages.Mark, NAME, INSTANT, st.lists(PLACE, max_size=3)), max_size=3)
    ),
    st.just(messages.Hello()),
    st.just(messages.Report()),
    st.builds(messages.Connect, NAME),
    st.builds(messages.Share, NAME),
    st.builds(messages.Unshare, NAME),
    st.builds(messages.Replicate, NAME, SIZE, HALF, st.booleans(), st.booleans()),
    st.builds(messages.Enlarge, NAME, SIZE, st.booleans()),
    st.builds(messages.Release, NAME, HALF, st.booleans(), st.booleans()),
    st.builds(messages.Rename, NAME, NAME, HALF, st.booleans()),
    st.builds(messages.SetSpeed, st.sampled_from([LINK_SPEEDS[0], 7, LINK_SPEEDS[-1]]), st.booleans()),
    st.builds(
        messages.Tune,
        NAME,
        st.sampled_from(TUNABLE),
        st.from_regex(r"-?[0-9]{1,9}|[a-z]{1,9}", fullmatch=True),
        st.booleans(),
    ),
    st.builds(
        messages.Enrol,
        st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        HOSTNAME,
        st.just(make.FINGERPRINT) | st.just(""),
        SSH_KEY,
        SSH_KEY,
    ),
)
RESOURCE = st.builds(messages.ResourceReport, NAME, WORD, WORD, WORD, st.integers(0, 2**60), WORD)
ANSWERS = st.one_of(
    st.builds(messages.Passed, st.lists(st.builds(messages.Complete, NAME, INSTANT), max_size=3)),
    st.just(messages.Done()),
    st.just(messages.Agreed()),
    st.builds(messages.Arrived, SIZE, st.integers(1, 10**9)),
    st.builds(messages.Greeting, HOSTNAME, WORD, WORD, INSTANT),
    st.builds(messages.MachineReport, HOSTNAME, WORD, st.lists(RESOURCE, max_size=3)),
    st.builds(messages.Replicated, HALF, SIZE, st.booleans(), SIZE),
    st.builds(messages.Enlarged, SIZE),
)

REPLICATE = messages.Replicate(
    "test_a", 2**30, messages.Half.of(make.replica()), overwrite_metadata=False, only_check=False
)
ENROL = messages.Enrol("0" * 64, "backup", make.FINGERPRINT, make.SSH_KEY, make.SSH_KEY)


def message(request: messages.Request) -> dict[str, Any]:
    return json.loads(protocol.encode_request(request))


def refused(value: object) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        protocol.decode_request(value if isinstance(value, str) else json.dumps(value))
    return raised.value


@given(REQUESTS)
def test_a_request_arrives_as_it_was_sent(request: messages.Request) -> None:
    text = protocol.encode_request(request)
    assert "\n" not in text
    assert protocol.decode_request(text) == request


@given(ANSWERS)
def test_an_answer_arrives_as_it_was_sent(answer: Any) -> None:
    assert protocol.decode_answer(type(answer), protocol.encode_answer(answer)) == answer


REPORT = messages.MachineReport(
    "backup", "8.4.11", [messages.ResourceReport("test_a", "Secondary", "UpToDate", "Connected", 0, "")] * 2
)


def reported(resources: object) -> messages.MachineReport:
    whole = json.loads(protocol.encode_answer(REPORT))
    whole["answer"]["resources"] = resources
    return protocol.decode_answer(messages.MachineReport, json.dumps(whole))


ONE = dataclasses.asdict(REPORT.resources[0])


@pytest.mark.parametrize(
    "resources",
    [
        None, {}, "test_a", ["test_a"], [ONE, None], [[ONE]], [{}], [ONE | {"more": 1}],
        [{key: ONE[key] for key in ONE if key != "role"}], [ONE | {"name": "../x"}], [ONE | {"role": "a\nb"}],
        [ONE | {"role": 1}], [ONE | {"changed_bytes": -1}], [ONE | {"changed_bytes": True}],
        [ONE | {"changed_bytes": 2**60 + 1}], [ONE | {"disconnected_since": None}], [ONE | {"disk": "x" * 201}],
    ],
)  # fmt: skip
def test_a_report_with_one_resource_that_makes_no_sense_is_refused_as_a_whole(resources: object) -> None:
    assert reported([ONE, ONE]) == REPORT
    assert reported([]).resources == []
    with pytest.raises(BadRequest):
        reported(resources)


@pytest.mark.parametrize(
    "now", [None, 1, "", "yesterday", "12:00", "2026-11-22T12:00:00", "2026-11-22T25:00:00+00:00", "\ud800", "9" * 300]
)
def test_a_greeting_whose_time_is_none_is_refused(now: object) -> None:
    greeting = messages.Greeting("backup", "backup", "8.4.11", "2026-11-22T12:00:00+00:00")
    whole = json.loads(protocol.encode_answer(greeting))
    assert protocol.decode_answer(messages.Greeting, json.dumps(whole)) == greeting
    whole["answer"]["now"] = now
    with pytest.raises(BadRequest):
        protocol.decode_answer(messages.Greeting, json.dumps(whole))


def test_a_half_is_a_replica_that_travels() -> None:
    replica = make.replica(7, "test_b")
    assert messages.Half.of(replica).replica() == replica


@pytest.mark.parametrize("extra", [{"more": 1}, {"verb": "hello"}])
def test_a_word_more_around_an_answer_is_refused(extra: dict[str, object]) -> None:
    whole = json.loads(protocol.encode_answer(messages.Done()))
    assert protocol.decode_answer(messages.Done, json.dumps(whole)) == messages.Done()
    with pytest.raises(BadRequest):
        protocol.decode_answer(messages.Done, json.dumps(whole | extra))


@given(REQUESTS, st.data())
def test_one_word_less_or_one_more_is_refused(request: messages.Request, data: st.DataObject) -> None:
    whole = message(request)
    key = data.draw(st.sampled_from(sorted(whole)))
    refused({k: v for k, v in whole.items() if k != key})
    refused({**whole, "extra": 1})


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, (*path, key))


def put(value: dict[str, Any], path: tuple[str, ...], inner: object) -> dict[str, Any]:
    head, *rest = path
    return {**value, head: put(value[head], tuple(rest), inner) if rest else inner}


WRONG = (None, True, False, -1, 0.5, 2**64, 10**400, "", "x" * 300, "a\nb", "\ud800", [], {}, ["x"], {"volume": 1})


@pytest.mark.parametrize("path", [path for r in (REPLICATE, ENROL) for path in places(message(r))], ids=".".join)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value)[:12])
def test_a_value_of_another_type_or_range_is_refused(path: tuple[str, ...], wrong: object) -> None:
    whole = message(REPLICATE if path[0] in message(REPLICATE) else ENROL)
    yes_or_no = path in (("overwrite_metadata",), ("only_check",), ("blank",)) and isinstance(wrong, bool)
    if yes_or_no or (path, wrong) in ((("fingerprint",), ""), (("seed",), "")):
        protocol.decode_request(json.dumps(put(whole, path, wrong)))
    else:
        refused(put(whole, path, wrong))


@pytest.mark.parametrize("number", [True, 1.0, "1"])
@pytest.mark.parametrize("path", [("version",), ("server", "minor"), ("server", "port"), ("size_bytes",)], ids=".".join)
def test_a_number_is_a_whole_number_and_nothing_that_is_equal_to_one(path: tuple[str, ...], number: object) -> None:
    refused(put(message(REPLICATE), path, number))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "../../etc/passwd"), (("name",), "a b"), (("name",), "-x"), (("name",), "a%i"),
        (("size_bytes",), 0), (("size_bytes",), 2**60 + 1),
        (("server", "volume"), "local/../x"), (("server", "volume"), "test_a"), (("server", "volume"), "local/a;b"),
        (("server", "metadata"), "local/meta[-1]"), (("server", "minor"), 1048576), (("server", "port"), 0),
    ],
)  # fmt: skip
def test_a_value_that_could_do_harm_is_refused(path: tuple[str, ...], value: object) -> None:
    refused(put(message(REPLICATE), path, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token", "0" * 63), ("token", "0" * 64 + "\n"), ("token", "G" * 64),
        ("hostname", "a b"), ("hostname", "-a"), ("hostname", ""), ("hostname", "a" * 65), ("hostname", 'a"b'),
        ("fingerprint", make.FINGERPRINT.lower()), ("fingerprint", make.FINGERPRINT + "\n"),
        ("ssh_key", "ssh-rsa AAAA"), ("ssh_key", make.SSH_KEY + " comment"), ("ssh_key", f"{make.SSH_KEY}\ncommand"),
        ("ssh_host_key", 'command="x" ' + make.SSH_KEY),
    ],
)  # fmt: skip
def test_a_key_that_could_become_a_second_line_of_a_file_is_refused(key: str, value: str) -> None:
    refused({**message(ENROL), key: value})


@pytest.mark.parametrize("hostname", ["a..b", "a.-b", "a-.b", "a" * 64 + ".b"])
def test_a_host_name_that_the_configuration_would_refuse_is_refused_at_once(hostname: str) -> None:
    """Later would be too late: the invitation is used up by then."""
    refused({**message(ENROL), "hostname": hostname})


@pytest.mark.parametrize("verb", [None, 1, [], {}, "", "reboot", "Hello", "hello ", "__class__"])
def test_an_unknown_verb_is_refused(verb: object) -> None:
    refused({"version": 1, "verb": verb})


@pytest.mark.parametrize("version", [None, 0, 2, "1", [1]])
def test_another_version_is_refused_with_the_way_on(version: object) -> None:
    assert "same version" in refused({"version": version, "verb": "hello"}).hint


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"hello"', "1", "NaN", "[" * 60000, '{"a":' * 10000, '{"version": 1} {}', "\x00"],
    ids=lambda text: text[:12],
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    refused(text)


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    text = protocol.encode_request(messages.Hello())
    assert protocol.decode_request(text + " " * (protocol.MAX_BYTES - len(text))) == messages.Hello()
    assert str(protocol.MAX_BYTES) in refused(text + " " * protocol.MAX_BYTES).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=10,
)
KINDS = [*get_args(messages.Answer)]


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")) | JSON.map(json.dumps))
def test_any_text_is_a_request_or_a_bad_request(text: str) -> None:
    with suppress(BadRequest):
        protocol.decode_request(text)


@given(REQUESTS, st.data())
def test_any_change_of_a_request_is_a_request_or_a_bad_request(request: messages.Request, data: st.DataObject) -> None:
    whole = message(request)
    path = data.draw(st.sampled_from(list(places(whole))))
    changed = json.dumps(put(whole, path, data.draw(JSON)))
    with suppress(BadRequest):
        protocol.decode_request(changed)


@given(st.sampled_from(KINDS), JSON | st.fixed_dictionaries({"exit_code": JSON, "message": JSON, "hint": JSON}), JSON)
def test_any_answer_of_the_peer_is_an_answer_or_one_of_our_errors(kind: type, error: object, answer: object) -> None:
    for whole in ({"version": 1, "error": error}, {"version": 1, "answer": answer}, {"version": 1, "x": answer}):
        try:
            found = protocol.decode_answer(kind, json.dumps(whole))
        except OffsiteError:
            continue
        assert isinstance(found, kind)


@pytest.mark.parametrize("exit_code", [[], {}, True, None, "3", 3.0, 99, -1])
def test_an_error_with_a_strange_exit_code_is_an_error(exit_code: object) -> None:
    body = {"exit_code": exit_code, "message": "no", "hint": ""}
    with pytest.raises(OffsiteError):
        protocol.decode_answer(messages.Done, json.dumps({"version": 1, "error": body}))


@pytest.mark.parametrize(
    ("sent", "received"),
    [(Refused("no room", "make some"), Refused), (Held("held", ""), Held), (PeerUnreachable("x", ""), PeerUnreachable),
     (OffsiteError("broken", ""), OffsiteError)],
)  # fmt: skip
def test_the_peer_s_refusal_arrives_with_its_reason_and_exit_code(sent: OffsiteError, received: type) -> None:
    with pytest.raises(OffsiteError) as raised:
        protocol.decode_answer(messages.Done, protocol.encode_error(sent))
    assert type(raised.value) is received
    assert sent.message in raised.value.message
    assert "peer" in raised.value.message
    assert raised.value.hint == sent.hint


def test_the_peer_s_words_cannot_steer_a_terminal() -> None:
    with pytest.raises(OffsiteError) as raised:
        protocol.decode_answer(
            messages.Done, protocol.encode_error(Refused("\x1b]0;owned\x07\r" + "x" * 9000, "\x9b2J"))
        )
    assert not set(raised.value.message + raised.value.hint) & set("\x1b\x07\r\x9b")
    assert len(raised.value.message) < 3000


@pytest.mark.parametrize(
    ("field", "value"),
    [("key", "volume"), ("key", ""), ("key", None), ("key", ["alerts"]), ("key", {}), ("value", 5), ("value", ""),
     ("value", "5\n"), ("value", "a b"), ("value", "1" * 21), ("value", "'"), ("value", "\u0665"), ("name", "../x"),
     ("only_check", 1)],
)  # fmt: skip
def test_what_cannot_be_tuned_is_refused_before_it_is_looked_at(field: str, value: object) -> None:
    refused(message(messages.Tune("test_a", "alerts", "all", only_check=True)) | {field: value})


@pytest.mark.parametrize("link_speed", [0, -1, 100001, 7.0, "7", True, None, [], 10**400])
def test_a_speed_that_no_line_can_be_configured_with_is_refused(link_speed: object) -> None:
    refused(message(messages.SetSpeed(7, only_check=True)) | {"link_speed": link_speed})


@pytest.mark.parametrize(
    ("field", "value"),
    [("size_bytes", 0), ("size_bytes", -1), ("size_bytes", 2**60 + 1), ("size_bytes", 1.5), ("microseconds", 0),
     ("microseconds", 10**9 + 1), ("microseconds", True), ("microseconds", "1")],
)  # fmt: skip
def test_what_cannot_have_arrived_is_refused(field: str, value: object) -> None:
    whole = json.loads(protocol.encode_answer(messages.Arrived(1000, 1000)))
    whole["answer"][field] = value
    with pytest.raises(BadRequest):
        protocol.decode_answer(messages.Arrived, json.dumps(whole))


RELEASE = messages.Release("test_a", messages.Half.of(make.replica()), delete_copy=False, only_check=False)
ENLARGE = messages.Enlarge("test_a", 2**30, only_check=False)
RENAME = messages.Rename("test_a", "test_b", messages.Half.of(make.replica()), only_check=False)


@pytest.mark.parametrize(
    ("request_", "path"), [(r, path) for r in (RELEASE, ENLARGE, RENAME) for path in places(message(r))]
)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value)[:12])
def test_what_enlarges_takes_away_or_renames_is_checked_word_by_word(
    request_: messages.Request, path: tuple[str, ...], wrong: object
) -> None:
    whole = message(request_)
    if isinstance(wrong, bool) and path[0] in ("delete_copy", "only_check"):
        protocol.decode_request(json.dumps(put(whole, path, wrong)))
    else:
        refused(put(whole, path, wrong))


def test_each_request_has_one_kind_of_answer() -> None:
    assert set(messages.ANSWERS) == set(get_args(messages.Request))
    assert set(messages.ANSWERS.values()) <= set(KINDS)


def test_the_vocabulary_is_fixed() -> None:
    assert {kind.VERB for kind in get_args(messages.Request)} == {
        "hello", "enrol", "report", "replicate", "enlarge", "release", "tune", "set-speed", "rename", "connect",
        "stand", "take", "share", "unshare", "marks",
    }  # fmt: skip
    assert all(dataclasses.is_dataclass(kind) for kind in (*get_args(messages.Request), *KINDS))
