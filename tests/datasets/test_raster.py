import math

import numpy as np
import pytest

from sheafnet.datasets.raster import gradient, rotated, shifted

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 9, 9), dtype=np.uint8)
FLOATS = (IMAGES / 255).astype(np.float32)


def at(image, y, x):
    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
    return float(image[y, x]) if inside else 0.0


def test_shifted_moves_down_and_right_into_black():
    shifts = np.array([[0, 0], [2, 0], [0, -3], [-1, 2], [3, 3]])
    moved = shifted(IMAGES, shifts)
    for image, (down, right), found in zip(FLOATS, shifts, moved, strict=True):
        for y in range(9):
            for x in range(9):
                assert found[y, x] == pytest.approx(at(image, y - down, x - right), abs=1e-6)


def test_shifted_keeps_a_border():
    moved = shifted(IMAGES, np.ones((5, 2), np.int64), border=1)
    assert moved.shape == (5, 11, 11)
    assert np.array_equal(moved[:, 2:, 2:], shifted(IMAGES, np.zeros((5, 2), np.int64)))


def test_gradient_is_the_sobel_magnitude():
    found = gradient(np.pad(FLOATS, ((0, 0), (1, 1), (1, 1))))
    kernel = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    for image, magnitude in zip(FLOATS, found, strict=True):
        for y in range(9):
            for x in range(9):
                across = down = 0.0
                for i in range(3):
                    for j in range(3):
                        value = at(image, y + i - 1, x + j - 1)
                        across += kernel[i][j] * value
                        down += kernel[j][i] * value
                assert magnitude[y, x] == pytest.approx(math.hypot(across, down) / 4, abs=1e-5)


def test_a_straight_edge_has_gradient_one():
    step = np.zeros((1, 8, 8), np.float32)
    step[:, :, 4:] = 1
    assert gradient(step)[0, 3].tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1, 4])
def test_quarter_turns_move_pixels_exactly(turns):
    found = rotated(FLOATS, np.full(5, 90 * turns, np.float32))
    assert np.allclose(found, np.rot90(FLOATS, turns, axes=(1, 2)), atol=1e-5)


def test_rotation_is_bilinear_about_the_centre():
    degrees = np.array([10, -33.3, 45, 71, 180], np.float32)
    found = rotated(FLOATS, degrees)
    for image, angle, turned in zip(FLOATS, np.deg2rad(degrees.astype(float)), found, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        for row in range(9):
            for column in range(9):
                # y upwards here: the source of a point turned counter-clockwise.
                x, y = column - 4, 4 - row
                from_x, from_y = cos * x + sin * y, -sin * x + cos * y
                r, c = 4 - from_y, 4 + from_x
                r0, c0 = math.floor(r), math.floor(c)
                expected = sum(
                    at(image, r0 + i, c0 + j)
                    * (r - r0 if i else 1 - r + r0)
                    * (c - c0 if j else 1 - c + c0)
                    for i in (0, 1)
                    for j in (0, 1)
                )
                assert turned[row, column] == pytest.approx(expected, abs=2e-5)
