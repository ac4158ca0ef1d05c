import numpy as np
import pytest

from sheafnet.datasets.raster import gradient

STATISTICS = {"image": (0.1314, 0.3086), "gradient": (0.1818, 0.3294), "rotated": (0.1312, 0.2901)}
VIEWS = tuple(STATISTICS)


def pixels(view, modality):
    mean, sd = STATISTICS[modality]
    return view[:, 0] * sd + mean


@pytest.fixture(scope="module")
def plain(opened):
    return opened("multiview-mnist", graph="complete", nodes=3, shift=0, noise=0.0, rotation=0.0)


@pytest.fixture(scope="module")
def rows(plain, mnist):
    """Source digits of the test events, from the plain image view."""
    row_of = {image.tobytes(): row for row, image in enumerate(mnist[0])}
    grey = np.rint(pixels(plain.source(0).samples("test", np.arange(1000)), "image") * 255)
    return np.array([row_of[image.tobytes()] for image in grey.astype(np.uint8)])


def test_an_event_is_one_digit_at_all_nodes(plain, rows, mnist):
    events = np.arange(1000)
    assert len(set(rows.tolist())) == 1000
    source = (mnist[0][rows] / 255).astype(np.float32)
    outline = gradient(np.pad(source, ((0, 0), (1, 1), (1, 1))))
    for node, expected in enumerate((source, outline, source)):
        found = pixels(plain.source(node).samples("test", events), VIEWS[node])
        assert np.allclose(found, expected, atol=1e-5)
        for edge in (0, 1):
            assert np.array_equal(plain.source(node).labels("test", events, edge), mnist[1][rows])


def test_views_go_by_index_in_turn_or_by_choice(opened):
    data = opened("multiview-mnist", nodes=5, modalities={1: "image", 4: "rotated"})
    assert [data.modality(n) for n in range(5)] == ["image", "image", "rotated", "image", "rotated"]


def test_two_nodes_with_the_same_view_have_shift_and_noise_of_their_own(opened):
    data = opened("multiview-mnist", modalities={0: "image", 1: "image"})
    a, b = (data.source(n).samples("train", np.arange(64)) for n in (0, 1))
    differing = [not np.allclose(x, y, atol=0.5) for x, y in zip(a, b, strict=True)]
    assert all(differing)
    assert np.array_equal(
        data.source(0).labels("train", np.arange(64), 0),
        data.source(1).labels("train", np.arange(64), 0),
    )


def test_the_digit_turns_within_the_bound(opened, plain, rows, mnist):
    """The angle of a one, read off its principal axis, moves by up to 45 degrees and no more."""
    data = opened("multiview-mnist", graph="complete", nodes=3, shift=0, noise=0.0)
    ones = np.flatnonzero(mnist[1][rows] == 1)

    def axis(images):
        y, x = np.indices((28, 28)) - 13.5
        mass = np.clip(images, 0, 1)
        mass = mass / mass.sum(axis=(1, 2), keepdims=True)
        y = y - (mass * y).sum(axis=(1, 2))[:, None, None]
        x = x - (mass * x).sum(axis=(1, 2))[:, None, None]
        xy, xx, yy = ((mass * p).sum(axis=(1, 2)) for p in (-x * y, x * x, y * y))
        return np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))

    before = axis(pixels(plain.source(2).samples("test", ones), "rotated"))
    after = axis(pixels(data.source(2).samples("test", ones), "rotated"))
    turn = (after - before + 90) % 180 - 90
    assert np.abs(turn).max() < 48
    assert turn.min() < -35
    assert turn.max() > 35
    assert abs(turn.std() - 90 / 12**0.5) < 5


def test_splits_show_different_digits_and_epochs_show_each_once(plain):
    images, seen = {}, set()
    for split in ("train", "validation", "test"):
        size = plain.distinct(split)
        view = plain.source(0).samples(split, np.arange(size))
        images[split] = {image.tobytes() for image in view}
        assert len(images[split]) == size
        seen |= images[split]
    assert len(seen) == 5000
    again = plain.source(0).samples("train", np.arange(3500, 7000))
    assert {image.tobytes() for image in again} == images["train"]


@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_view_does_not_depend_on_its_batch(opened, node):
    data = opened("multiview-mnist", graph="complete", nodes=3)
    run = data.source(node).samples("train", np.arange(3456, 3584))
    order = np.random.default_rng(0).permutation(128)[:50]
    mixed = data.source(node).samples("train", order + 3456)
    alone = data.source(node).samples("train", order[:1] + 3456)
    assert run.shape == (128, 1, 28, 28)
    assert run.dtype == np.float32
    assert np.array_equal(mixed, run[order])
    assert np.array_equal(alone, mixed[:1])


def test_values_are_centred_and_scaled(opened):
    data = opened("multiview-mnist", graph="complete", nodes=3)
    for node, (_, sd) in enumerate(STATISTICS.values()):
        view = data.source(node).samples("train", np.arange(1024))
        assert abs(view.mean()) < 0.03
        assert abs(view.var() - (1 + (0.2 / sd) ** 2)) < 0.05
