"""From the file of one sensor at one moment to an array of fixed size.

The formats are those of DeepSense 6G: images, text files of numbers, ``.npy``, MATLAB's ``.mat``
and ASCII ``.ply``. Every function raises `DatasetError`, naming the file, where it cannot be read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sheafnet.errors import DatasetError

Size = tuple[int, int]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_CHIRPS = 32
"""Chirps of a radar frame that are looked at: more cost time and hardly change the map."""


def camera(path: Path, size: Size, colour: bool) -> npt.NDArray[np.uint8]:
    """The image, shrunk by averaging: (3 or 1, height, width) in 0 to 255."""
    from PIL import Image

    height, width = size
    mode = "RGB" if colour else "L"
    try:
        with Image.open(path) as image:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, much faster.
            image.draft(mode, (width, height))
            small = image.convert(mode).resize((width, height), Image.Resampling.BOX)
    # Pillow's decoders let SyntaxError, struct.error and others through.
    except Exception as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error}).") from None
    pixels = np.asarray(small, np.uint8).reshape(height, width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def power(path: Path) -> Floats:
    """Received power of every beam: (beams,). A beam that was not measured (NaN) is interpolated.

    Real sweeps lack a few beams now and then; the nearest measured ones on both sides fill them.
    """
    vector = _real(path, numbers(path)).ravel()
    beams = np.arange(len(vector))
    measured = np.isfinite(vector)
    if not measured.any():
        raise DatasetError(f"{path}: holds no beam's power.")
    return np.interp(beams, beams[measured], vector[measured]).astype(np.float32)


def lidar(path: Path, bins: Size, furthest: float) -> Floats:
    """log(1 + points) per cell of range by azimuth, a full turn: (1, ranges, azimuths).

    Two columns are range in metres and azimuth in radians; three and more begin with x, y, z in
    metres, of which the height is not used. Points at 0 (no echo) and from `furthest` on are left
    out.
    """
    points = _ply(path) if path.suffix.lower() == ".ply" else _real(path, numbers(path))
    if points.ndim != 2 or points.shape[1] < 2:
        raise DatasetError(
            f"{path}: shape {points.shape}; expected (points, 2) of range and azimuth, or "
            "(points, 3 or more) of x, y, z."
        )
    if points.shape[1] == 2:
        distance, azimuth = points.T
    else:
        x, y = points[:, 0], points[:, 1]
        distance, azimuth = np.hypot(x, y), np.arctan2(y, x)
    ranges, azimuths = bins
    usable = (distance > 0) & (distance < furthest) & np.isfinite(azimuth)
    ring = np.floor(distance[usable] / furthest * ranges).astype(np.int64)
    sector = np.floor((azimuth[usable] / (2 * np.pi) + 0.5) * azimuths).astype(np.int64) % azimuths
    counts = np.bincount(ring * azimuths + sector, minlength=ranges * azimuths)
    return np.log1p(counts, dtype=np.float32).reshape(1, ranges, azimuths)


def radar(path: Path, bins: Size) -> Floats:
    """log(1 + magnitude) of the range-angle map: (1, ranges, angles).

    A cube (antennas, samples of a chirp, chirps) is transformed by FFTs over samples and antennas,
    without what stands still (the mean over chirps). A matrix is taken as a map of range by angle.
    """
    values = numbers(path)
    if not values.size or not np.isfinite(values).all():
        raise DatasetError(f"{path}: holds {'NaN or infinity' if values.size else 'no number'}.")
    if values.ndim == 3:
        if values.shape[2] > 1:
            values = values - values.mean(axis=2, keepdims=True)
        values = values[:, :, :: -(-values.shape[2] // _CHIRPS)]
        echoes = np.fft.fft(values, axis=1)
        # As many angles as asked for, or a multiple where that is fewer than the antennas.
        angles = bins[1] * -(-len(values) // bins[1])
        spectrum = np.fft.fftshift(np.fft.fft(echoes, angles, axis=0), axes=0)
        map_ = np.abs(spectrum).mean(axis=2).T
    elif values.ndim == 2:
        map_ = np.abs(values)
    else:
        raise DatasetError(
            f"{path}: shape {values.shape}; expected a cube (antennas, samples, chirps) or a map "
            "(ranges, angles)."
        )
    if map_.shape[0] < bins[0] or map_.shape[1] < bins[1]:
        raise DatasetError(
            f"{path}: a map of {map_.shape[0]} ranges by {map_.shape[1]} angles has too few for "
            f"dataset.radar_bins = {list(bins)}; choose fewer."
        )
    small = np.log1p(_shrunk(_shrunk(map_, bins[0], 0), bins[1], 1))
    return small.astype(np.float32)[None]


def numbers(path: Path) -> Array:
    """The array in a ``.npy``, ``.mat`` or text file (numbers apart by blanks or commas).

    Of a ``.mat`` it is the variable ``data``, or the only one.
    """
    try:
        if path.suffix.lower() == ".npy":
            array: Array = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".mat":
            array = _mat(path)
        else:
            lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
            array = np.array([line.split() for line in lines if line.strip()], np.float64)
    except DatasetError:
        raise
    # A damaged file reaches parsers that let TokenError, struct.error and others through.
    except Exception as error:
        raise DatasetError(f"{path}: cannot be read as numbers ({error}).") from None
    if array.dtype.kind not in "biufc":
        raise DatasetError(f"{path}: holds {array.dtype}, expected numbers.")
    return array


def _real(path: Path, array: Array) -> npt.NDArray[np.float64]:
    if array.dtype.kind == "c":
        raise DatasetError(f"{path}: holds complex numbers, expected real ones.")
    return array.astype(np.float64)


def _mat(path: Path) -> Array:
    from scipy.io import loadmat  # here, as few runs read such a file

    content = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    chosen = "data" if "data" in content else next(iter(content), "")
    if len(content) != 1 and chosen != "data":
        raise DatasetError(
            f"{path}: holds {len(content)} variables ({', '.join(content)}) and none is called "
            "data; save it with that one."
        )
    array: Array = np.asarray(content[chosen])
    return array


def _ply(path: Path) -> npt.NDArray[np.float64]:
    """The coordinates of the vertices of an ASCII ``.ply``: (points, 3)."""
    try:
        head, _, body = path.read_bytes().partition(b"end_header")
        words = [line.split() for line in head.decode("ascii").splitlines()]
        if ["format", "ascii", "1.0"] not in words:
            raise ValueError("not of the format ascii 1.0")
        elements = [k for k, line in enumerate(words) if line[:1] == ["element"]]
        first = words[elements[0]]
        if first[1] != "vertex":
            raise ValueError("its first element is not vertex")
        own = words[elements[0] : [*elements, len(words)][1]]
        names = [line[-1] for line in own if line[:1] == ["property"]]
        count = int(first[2])
        lines = body.decode("ascii").splitlines()[1 : count + 1]
        if len(lines) < count:
            raise ValueError(f"ends after {len(lines)} of {count} vertices")
        if not count:
            return np.empty((0, 3))
        return np.loadtxt(lines, usecols=[names.index(axis) for axis in "xyz"], ndmin=2)
    except (OSError, ValueError, IndexError) as error:
        raise DatasetError(f"{path}: cannot be read as an ASCII point cloud ({error}).") from None


def _shrunk(map_: Array, size: int, axis: int) -> Array:
    """The means of `size` nearly equal stretches along `axis`."""
    edges = np.arange(size + 1) * map_.shape[axis] // size
    sums = np.add.reduceat(map_, edges[:-1], axis=axis)
    lengths = np.diff(edges)
    return np.asarray(sums / (lengths[:, None] if axis == 0 else lengths))
