import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sheafnet.datasets.epochs import Epochs, SplitRows, check_events, stratified


@given(st.integers(1, 400), st.integers(0, 3))
def test_an_epoch_shows_every_row_once(size, epoch):
    rows = Epochs(size, 0, "e").rows(np.arange(epoch * size, (epoch + 1) * size))
    assert sorted(rows.tolist()) == list(range(size))


def test_a_batch_across_epochs_equals_its_events_alone():
    size, events = 50, np.array([49, 50, 3, 149, 99, 100, 51])
    together = Epochs(size, 5, "e").rows(events)
    alone = [Epochs(size, 5, "e").rows(np.array([e]))[0] for e in events]
    assert together.tolist() == alone


def test_epochs_are_ordered_afresh():
    epochs = Epochs(1000, 0, "e")
    first, second = epochs.rows(np.arange(1000)), epochs.rows(np.arange(1000, 2000))
    assert (first == second).sum() < 10


@given(st.integers(2, 6), st.integers(4, 40), st.data())
def test_every_prefix_of_a_stratified_order_is_balanced(classes, each, data):
    labels = np.array(data.draw(st.permutations(list(range(classes)) * each)))
    order = stratified(labels, "t")
    assert sorted(order.tolist()) == list(range(len(labels)))
    prefix = data.draw(st.integers(1, len(labels)))
    counts = np.bincount(labels[order[:prefix]], minlength=classes)
    assert counts.max() - counts.min() <= 1


def test_uneven_classes_are_cut_in_proportion():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    counts = np.bincount(labels[stratified(labels, "t")[:500]], minlength=3)
    assert abs(counts - [350, 100, 50]).max() <= 1


PINNED = [7, 8, 13, 18, 15, 10, 1, 0, 11, 14, 19, 16, 4, 5, 17, 2, 9, 6, 3, 12]


def test_the_split_order_is_pinned():
    """Whoever changes it changes every split, and no figure compares with older ones."""
    labels = np.arange(20) % 2
    assert stratified(labels, "pin").tolist() == PINNED
    assert stratified(labels, "other").tolist() != PINNED


def test_split_rows_number_events_by_row_outside_training():
    splits = {"train": np.array([4, 5, 6]), "validation": np.array([2, 0]), "test": np.array([1])}
    rows = SplitRows(splits, 0)
    assert rows.rows("validation", np.array([1, 0, 1])).tolist() == [0, 2, 0]
    assert sorted(rows.rows("train", np.array([3, 4, 5])).tolist()) == [4, 5, 6]
    assert [rows.size(s) for s in splits] == [None, 2, 1]
    assert [rows.distinct(s) for s in splits] == [3, 2, 1]


@pytest.mark.parametrize("events", [[-1], [0, 10], [3, -2, 4]])
def test_events_outside_the_split_are_refused(events):
    with pytest.raises(IndexError, match="validation events are numbered 0 to 9"):
        check_events(np.array(events), 10, "validation")


def test_endless_splits_refuse_negative_events_only():
    check_events(np.array([10**12]), None, "train")
    with pytest.raises(IndexError, match="0 on"):
        check_events(np.array([-1]), None, "train")
