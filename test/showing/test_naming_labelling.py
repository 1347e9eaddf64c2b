from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unim2_core.errors import ModelError
from unim2_core.model.bundle import UNLABELLED
from unim2_core.showing.naming.labelling import LONGEST, Edits, Labelling, checked_name
from unim2_core.showing.naming.session import options_between

COUNT = 6
START = Labelling(
    tuple(f"cluster {i}" for i in range(COUNT)),
    tuple((i, i, i) for i in range(COUNT)),
    tuple(range(COUNT)),
)


def ids(labelling: Labelling) -> list[int]:
    return [label.id for label in labelling.labels]


def test_a_merged_class_has_the_number_the_name_and_the_colour_of_the_first():
    after = START.named(5, "road").merged((5, 2)).merged((5, 3))
    assert after.served == (0, 1, 5, 5, 4, 5)
    assert ids(after) == [0, 1, 4, 5]
    assert after.served_as == {2: 5, 3: 5}
    assert after.members(2) == (2, 3, 5)


def test_merging_takes_everything_along_that_was_merged_before():
    assert START.merged((1, 2)).merged((0, 2)).served == (0, 0, 0, 3, 4, 5)


def test_two_classes_of_one_name_are_one():
    after = START.named(1, "road").named(4, " road ")
    assert after.served == (0, 1, 2, 3, 1, 5)
    assert [label.name for label in after.labels].count("road") == 1


def test_naming_a_merged_cluster_names_its_class():
    assert START.merged((1, 4)).named(4, "wall").labels[1].name == "wall"


def test_unknown_is_unlabelled_and_a_name_makes_it_a_class_again():
    lost = START.merged((1, 4)).unknown(4)
    assert lost.served == (0, UNLABELLED, 2, 3, UNLABELLED, 5)
    assert lost.named(4, "pole").served == (0, UNLABELLED, 2, 3, 4, 5)
    assert lost.named(0, "road").named(4, "road").served == (0, UNLABELLED, 2, 3, 0, 5)


def test_merging_into_unknown_is_unknown():
    assert START.unknown(3).merged((3, 1)).served[1] == UNLABELLED


def test_a_parted_cluster_leaves_name_and_colour_to_the_others():
    merged = START.named(1, "road").merged((1, 3)).merged((1, 4))
    apart = merged.separated(1)
    assert apart.served == (0, 1, 2, 3, 3, 5)
    assert [apart.names[1], apart.names[3]] == ["cluster 1", "road"]
    assert merged.separated(4).served == (0, 1, 2, 1, 4, 5)
    assert START.separated(2) == START
    assert START.unknown(2).separated(2) == START


def test_a_parted_cluster_does_not_bring_back_a_name_that_is_taken():
    after = START.named(1, "road").merged((0, 1)).named(2, "road").separated(1)
    assert sorted(label.name for label in after.labels).count("road") == 1


@pytest.mark.parametrize("cluster", [-1, COUNT, UNLABELLED])
def test_what_is_no_cluster_is_refused(cluster: int):
    for change in (
        lambda: START.named(cluster, "road"),
        lambda: START.unknown(cluster),
        lambda: START.merged((0, cluster)),
        lambda: START.separated(cluster),
        lambda: START.colored(cluster, (0, 0, 0)),
    ):
        with pytest.raises(ModelError, match="no cluster"):
            change()


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "a\u202eb", "x" * (LONGEST + 1)])
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(ModelError, match="no name"):
        START.named(0, name)


def test_names_are_tidied():
    assert checked_name("  Stra\u0073\u0073e  \n nass ") == "Strasse nass"
    assert checked_name("e\u0301") == "\u00e9"


def test_unknown_has_no_colour():
    with pytest.raises(ModelError, match="no colour"):
        START.unknown(1).colored(1, (1, 2, 3))


def test_steps_are_undone_and_made_again():
    edits = Edits(START)
    edits.change(lambda was: was.named(0, "road"))
    edits.change(lambda was: was.unknown(1))
    edits.change(lambda was: was)  # nothing changes: no step
    edits.undo()
    assert edits.now == START.named(0, "road")
    edits.redo()
    assert edits.now.served[1] == UNLABELLED
    assert not edits.can_redo
    edits.undo()
    edits.undo()
    edits.undo()
    assert edits.now == START
    assert not edits.can_undo
    edits.change(lambda was: was.named(2, "sky"))
    assert not edits.can_redo


calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
clusters = st.integers(0, COUNT - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("named"), clusters, st.sampled_from(["a", "b", "c", "cluster 1"])),
        st.tuples(st.just("merged"), st.tuples(clusters, clusters)),
        st.tuples(st.sampled_from(["unknown", "separated"]), clusters),
    ),
    max_size=12,
)


def walked(labelling: Labelling, walk: list[tuple]) -> Labelling:
    for name, *arguments in walk:
        labelling = getattr(labelling, name)(*arguments)
    return labelling


@calm
@given(steps)
def test_whatever_is_done_classes_stay_sound(walk):
    after = walked(START, walk)
    served = set(after.served) - {UNLABELLED}
    assert all(after.served[cluster] == cluster for cluster in served)
    names = [label.name for label in after.labels]
    assert len(names) == len(set(names)) == len(served)


@calm
@given(steps, steps)
def test_the_options_that_are_printed_make_the_same_classes(first, second):
    before = walked(START, first)
    after = walked(before, second)
    made = before
    options = options_between(before, after)
    order = ("--separate", "--merge", "--unknown", "--set", "--color")  # the command's
    pairs = zip(options[::2], options[1::2], strict=True)
    for option, value in sorted(pairs, key=lambda pair: order.index(pair[0])):
        if option == "--separate":
            made = made.separated(int(value))
        elif option == "--unknown":
            made = made.unknown(int(value))
        elif option == "--merge":
            made = made.merged([int(part) for part in value.split(",")])
        elif option == "--set":
            cluster, _, name = value.partition("=")
            made = made.named(int(cluster), name)
        else:
            cluster, _, color = value.partition("=#")
            red, green, blue = bytes.fromhex(color)
            made = made.colored(int(cluster), (red, green, blue))
    assert made.labels == after.labels
    assert made.served_as == after.served_as
