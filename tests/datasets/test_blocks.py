from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sheafnet.datasets import blocks
from sheafnet.datasets.blocks import (
    Blocks,
    Integers,
    Normal,
    PixelNoise,
    Uniform,
    whole_blocks,
)

DRAWS = (Integers((2,), -3, 3), Uniform(()), PixelNoise((5, 3)), Normal((4,)))
events_lists = st.lists(st.integers(0, 300), min_size=1, max_size=70)


@given(events_lists)
def test_an_event_draws_the_same_numbers_in_every_batch(events):
    family = Blocks(7, "view", 3, "train")
    together = family.rows(np.array(events), *DRAWS)
    for at in range(0, len(events), 9):
        alone = family.rows(np.array([events[at]]), *DRAWS)
        for a, b in zip(together, alone, strict=True):
            assert np.array_equal(a[at], b[0])


def test_a_run_of_whole_blocks_agrees_with_its_events_shuffled():
    family, events = Blocks(7, "x"), np.arange(64, 192)
    order = np.random.default_rng(0).permutation(128)
    straight, mixed = family.rows(events, *DRAWS), family.rows(events[order], *DRAWS)
    for a, b in zip(straight, mixed, strict=True):
        assert np.array_equal(a[order], b)


def test_an_aligned_batch_of_128_opens_four_streams(monkeypatch):
    opened = []

    def counting(seed, *names):
        opened.append(names)
        return original(seed, *names)

    original = blocks.stream
    monkeypatch.setattr(blocks, "stream", counting)
    Blocks(0, "view", 1, "test").rows(np.arange(256, 384), *DRAWS)
    assert opened == [("view", 1, "test", b) for b in (8, 9, 10, 11)]


def test_no_events_draw_nothing():
    found = Blocks(0, "x").rows(np.array([], np.int64), *DRAWS)
    assert [a.shape for a in found] == [(0, 2), (0,), (0, 5, 3), (0, 4)]


@pytest.mark.parametrize("changed", [(1, "a", 0), (0, "b", 0), (0, "a", 1)])
def test_other_seeds_and_names_draw_other_numbers(changed):
    here = Blocks(0, "a", 0).rows(np.arange(32), Normal((4,)))[0]
    there = Blocks(*changed).rows(np.arange(32), Normal((4,)))[0]
    assert not np.intersect1d(here, there).size


def test_pixel_noise_is_standard_normal():
    (noise,) = Blocks(0, "noise").rows(np.arange(1024), PixelNoise((400,)))
    assert noise.dtype == np.float32
    n = noise.size
    assert abs(noise.mean()) < 4 / n**0.5
    assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((noise.astype(float) ** 4).mean() - 3) < 4 * (96 / n) ** 0.5
    for z in (-3.0, -1.0, 0.5, 2.0):
        p = NormalDist().cdf(z)
        assert abs((noise < z).mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    pixels = noise.reshape(-1, 400)
    assert abs(np.corrcoef(pixels[:, 0], pixels[:, 1])[0, 1]) < 4 / 1024**0.5


def test_integers_reach_both_bounds_alike():
    (drawn,) = Blocks(0, "i").rows(np.arange(3200), Integers((2,), -2, 2))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 6400 / 5 - 4 * (6400 * 0.2 * 0.8) ** 0.5


@given(events_lists)
def test_whole_blocks_cover_the_events(events):
    whole, at = whole_blocks(np.array(events))
    assert len(whole) % 32 == 0
    assert len(set(whole.tolist())) == len(whole)
    assert whole[at].tolist() == events
    assert {e // 32 for e in events} == {e // 32 for e in whole.tolist()}
