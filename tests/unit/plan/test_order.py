"""The order of resyncs, changed under resources that are up."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import Flavour, Resource, Site
from drbd_offsite.plan.order import reordered, tell_kernel
from drbd_offsite.render import resync_after, resync_order

from .. import make

NAMES = ("a", "b", "c", "d", "e", "f")
PEERS = ("one", "two")
Drawn = Mapping[str, tuple[int, str]]
DRAWN: st.SearchStrategy[Drawn] = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.integers(-100, 100) | st.just(0), st.sampled_from(PEERS))
)


def site(resources: Drawn) -> Site:
    """Resources by name, each with its priority and its peer, in the order of the file."""
    made: dict[str, Resource] = {
        name: replace(make.resource(name, NAMES.index(name), peer), priority=priority)
        for name, (priority, peer) in resources.items()
    }
    return make.site(Flavour.SERVER, made, peers={name: make.peer(name=name) for name in PEERS})


def plain(*names: str, **priorities: int) -> Site:
    return site({name: (priorities.get(name, 0), "one") for name in names})


def test_the_order_is_the_file_s() -> None:
    assert resync_order(plain("b", "a", "c"), "one") == ("b", "a", "c")
    assert resync_after(plain("b", "a", "c")) == {"a": "b", "c": "a"}


def test_a_higher_priority_is_synced_first_and_a_lower_one_last() -> None:
    assert resync_order(plain("a", "b", "c", "d", c=5, a=-1), "one") == ("c", "b", "d", "a")


def test_each_peer_s_line_has_an_order_of_its_own() -> None:
    two = site({"a": (0, "one"), "b": (0, "two"), "c": (9, "one"), "d": (0, "two")})
    assert (resync_order(two, "one"), resync_order(two, "two")) == (("c", "a"), ("b", "d"))
    assert resync_after(two) == {"a": "c", "d": "b"}
    assert resync_order(two, "three") == ()


@given(DRAWN)
def test_every_resource_is_once_in_a_chain_that_has_an_end(resources: Drawn) -> None:
    made = site(resources)
    waits = resync_after(made)
    for name in made.resources:
        chain = [name]
        while chain[-1] in waits:
            chain.append(waits[chain[-1]])
            assert len(chain) <= len(resources), "a circle"
        peer = made.resources[name].peer
        assert chain[::-1] == list(resync_order(made, peer)[: len(chain)])
        assert made.resources[chain[-1]].priority == max(
            other.priority for other in made.resources.values() if other.peer == peer
        )


def test_one_that_is_removed_is_left_out_of_the_chain() -> None:
    assert reordered(plain("a", "b", "c"), plain("a", "c")) == ("c",)
    assert resync_after(plain("a", "c")) == {"c": "a"}
    assert reordered(plain("a", "b", "c"), plain("b", "c")) == ("b",)
    assert reordered(plain("a", "b", "c"), plain("a", "b")) == ()


def test_one_that_is_added_in_the_middle_is_waited_for_by_the_next() -> None:
    assert reordered(plain("a", "b"), plain("a", "b", "c")) == ()
    assert reordered(plain("a", "b"), plain("a", "b", "c", c=1)) == ("a",)
    assert reordered(plain("a", "b", a=2), plain("a", "b", "c", a=2, c=1)) == ("b",)


def test_a_priority_that_changes_moves_one_and_its_neighbours() -> None:
    assert reordered(plain("a", "b", "c"), plain("a", "b", "c", c=1)) == ("c", "a")
    assert reordered(plain("a", "b", "c"), plain("a", "b", "c", a=1)) == ()


@given(DRAWN, DRAWN)
def test_the_kernel_told_in_that_order_never_sees_a_circle_and_ends_with_the_right_chain(
    one: Drawn, other: Drawn
) -> None:
    before, after = site(one), site(other)
    kernel = {name: earlier for name, earlier in resync_after(before).items() if name in after.resources}
    kernel |= {name: earlier for name, earlier in resync_after(after).items() if name not in before.resources}
    for name in reordered(before, after):
        argv = tell_kernel(after, name).argv
        earlier = next((n for n in after.resources if argv[-1] == f"--resync-after={NAMES.index(n)}"), None)
        follow = earlier
        while follow is not None:
            assert follow != name, "the kernel refuses a circle"
            follow = kernel.get(follow)
        kernel = {n: e for n, e in kernel.items() if n != name} | ({name: earlier} if earlier else {})
    assert kernel == resync_after(after)


def test_the_kernel_is_told_minors() -> None:
    made = plain("a", "b")
    assert tell_kernel(made, "b").argv == ("drbdsetup", "disk-options", "1", "--resync-after=0")
    assert tell_kernel(made, "a").argv == ("drbdsetup", "disk-options", "0", "--resync-after=-1")
