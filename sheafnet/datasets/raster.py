"""What cameras do to small grey images: shift, rotation, gradient, noise. All on whole batches."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def windows(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """A view of all side x side windows of `images`: (n, rows, columns, side, side).

    ``windows(...)[image, top, left]`` with arrays of indices gathers crops in one go.
    """
    return np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))


def shifted(images: npt.NDArray[np.uint8], shifts: Ints, border: int = 0) -> Floats:
    """`images` (n, s, s) moved down and right by `shifts` (n, 2), with values in [0, 1].

    What moves in is black. `border` more pixels are kept on each side: (n, s + 2·border, ...).
    """
    n, side = images.shape[:2]
    reach = int(np.abs(shifts).max(initial=0))
    padded = np.pad(images, ((0, 0), (reach + border,) * 2, (reach + border,) * 2))
    crops = windows(padded, side + 2 * border)
    down, right = shifts.T
    moved: Floats = crops[np.arange(n), reach - down, reach - right].astype(np.float32)
    moved *= np.float32(1 / 255)
    return moved


def gradient(images: Floats) -> Floats:
    """Sobel gradient magnitude of `images` (n, s + 2, s + 2), without the border: (n, s, s).

    Divided by 4, so that a straight edge from 0 to 1 gives 1.
    """
    vertical = images[:, :-2] + 2 * images[:, 1:-1] + images[:, 2:]
    horizontal = images[:, :, :-2] + 2 * images[:, :, 1:-1] + images[:, :, 2:]
    across = vertical[:, :, 2:] - vertical[:, :, :-2]
    down = horizontal[:, 2:] - horizontal[:, :-2]
    magnitude: Floats = np.sqrt(across * across + down * down) / np.float32(4)
    return magnitude


def rotated(images: Floats, degrees: Floats) -> Floats:
    """`images` (n, s, s) turned counter-clockwise about their centre by `degrees` (n,).

    Bilinear; what turns in from outside is 0.
    """
    n, side = images.shape[:2]
    angle = np.deg2rad(degrees)[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    centre = np.float32((side - 1) / 2)
    y, x = np.indices((side, side), np.float32).reshape(2, 1, -1) - centre
    # Each output pixel asks where it comes from, which is the turn by the opposite angle.
    from_y = np.clip(cos * y + sin * x + centre, -1, side)
    from_x = np.clip(cos * x - sin * y + centre, -1, side)
    top, left = np.floor(from_y), np.floor(from_x)
    part_y, part_x = from_y - top, from_x - left
    # One row of zeros before and two after hold every corner of a clipped position.
    width = side + 3
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2))).reshape(-1)
    corner = ((top + 1) * width + left + 1).astype(np.intp)
    corner += (np.arange(n) * width * width)[:, None]
    upper = padded[corner] * (1 - part_x) + padded[corner + 1] * part_x
    lower = padded[corner + width] * (1 - part_x) + padded[corner + width + 1] * part_x
    turned: Floats = upper * (1 - part_y) + lower * part_y
    return turned.reshape(n, side, side)
