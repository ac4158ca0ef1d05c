import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sheafnet.datasets import readings
from sheafnet.errors import DatasetError


def squares(path, channels=3):
    """An image of 2 x 4 flat squares of 10 pixels, each channel with values of its own."""
    values = np.arange(2 * 4 * channels, dtype=np.uint8).reshape(2, 4, channels) * 10
    Image.fromarray(values.repeat(10, 0).repeat(10, 1).squeeze()).save(path)
    return values


def test_camera_averages(tmp_path):
    values = squares(tmp_path / "a.png")
    seen = readings.camera(tmp_path / "a.png", (2, 4), colour=True)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, values.transpose(2, 0, 1))
    halves = readings.camera(tmp_path / "a.png", (1, 2), colour=True)
    assert np.array_equal(halves[:, 0, 0], values[:, :2].mean(axis=(0, 1)))
    values = squares(tmp_path / "grey.png", channels=1)
    assert np.array_equal(
        readings.camera(tmp_path / "grey.png", (2, 4), colour=False), values.transpose(2, 0, 1)
    )
    assert readings.camera(tmp_path / "grey.png", (2, 4), colour=True).shape == (3, 2, 4)


def test_camera_reads_a_jpeg_of_the_real_size(tmp_path):
    pixels = np.full((540, 960, 3), (200, 100, 50), np.uint8)
    pixels[:, 480:] = (20, 40, 160)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    seen = readings.camera(tmp_path / "a.jpg", (36, 64), colour=True).astype(int)
    assert np.abs(seen[:, :, :31] - np.array([200, 100, 50])[:, None, None]).max() <= 3
    assert np.abs(seen[:, :, 33:] - np.array([20, 40, 160])[:, None, None]).max() <= 3
    grey = readings.camera(tmp_path / "a.jpg", (36, 64), colour=False)
    assert grey.shape == (1, 36, 64)
    assert abs(int(grey[0, 5, 5]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 3


@pytest.mark.parametrize("text", ["1\n2\n3.5\n", "1 2 3.5", "1.0e0, 2,\t3.5"])
def test_power_is_text(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    assert readings.power(tmp_path / "p.txt").tolist() == [1, 2, 3.5]


def test_unmeasured_beams_are_interpolated(tmp_path):
    (tmp_path / "p.txt").write_text("nan\n2\nNaN\nnan\n8\n1\nnan\n")
    assert readings.power(tmp_path / "p.txt").tolist() == [2, 2, 4, 6, 8, 1, 1]


PLY = """ply
format ascii 1.0
comment made by hand
element vertex {count}
property double intensity
property double x
property double y
property double z
{more}end_header
"""

# (range in m, azimuth in degrees) -> cell of 4 ranges up to 20 m by 8 azimuths from -180 degrees
POINTS = {(1.0, 1.0): (0, 4), (6.0, -179.0): (1, 0), (6.5, 134.9): (1, 6), (19.9, 179.0): (3, 7)}
LEFT_OUT = [(0.0, 10.0), (20.0, 10.0), (300.0, 10.0)]


def scan():
    """Range and azimuth of `POINTS` (the last one twice) and of points that do not count."""
    points = [*POINTS, list(POINTS)[-1], *LEFT_OUT]
    return np.array([(distance, np.deg2rad(azimuth)) for distance, azimuth in points])


def cloud():
    distance, azimuth = scan().T
    height = np.arange(len(distance)) - 3.0
    return np.column_stack([distance * np.cos(azimuth), distance * np.sin(azimuth), height])


def write_scan_npy(path):
    np.save(path / "l.npy", scan())
    return path / "l.npy"


def write_scan_csv(path):
    np.savetxt(path / "l.csv", scan(), delimiter=",")
    return path / "l.csv"


def write_cloud_npy(path):
    np.save(path / "l.npy", np.column_stack([cloud(), np.ones((len(cloud()), 2))]).astype("f4"))
    return path / "l.npy"


def write_cloud_ply(path):
    rows = [f"7 {x:.6f} {y:.6f} {z:.6f}" for x, y, z in cloud()]
    more = "element face 1\nproperty list uchar int vertex_index\n"
    head = PLY.format(count=len(rows), more=more)
    (path / "l.ply").write_text(head + "\n".join(rows) + "\n3 0 1 2\n")
    return path / "l.ply"


def write_scan_mat(path):
    savemat(path / "l.mat", {"time": np.arange(4), "data": scan()})
    return path / "l.mat"


@pytest.mark.parametrize(
    "write", [write_scan_npy, write_scan_csv, write_cloud_npy, write_cloud_ply, write_scan_mat]
)
def test_lidar_counts_points_per_cell(tmp_path, write):
    expected = np.zeros((1, 4, 8))
    for cell in POINTS.values():
        expected[0, cell[0], cell[1]] = np.log(2)
    expected[0, 3, 7] = np.log(3)
    seen = readings.lidar(write(tmp_path), (4, 8), 20.0)
    assert seen.dtype == np.float32
    assert np.allclose(seen, expected)


def test_a_cloud_without_points_is_empty(tmp_path):
    (tmp_path / "l.ply").write_text(PLY.format(count=0, more=""))
    assert not readings.lidar(tmp_path / "l.ply", (4, 8), 20.0).any()


def echo(samples, chirps, *, distance, speed, angle, antennas=4):
    """The cube of one reflector; its place on each axis in turns of phase per step."""
    k, s, c = np.ogrid[:antennas, :samples, :chirps]
    turns = angle * k + distance / samples * s + speed / chirps * c
    return np.exp(2j * np.pi * turns).astype(np.complex64)


@pytest.mark.parametrize("suffix", ["npy", "mat"])
@pytest.mark.parametrize(("samples", "chirps"), [(256, 250), (512, 20)])
def test_radar_finds_what_moves(tmp_path, suffix, samples, chirps):
    # The fifth of 8 range cells, and a quarter turn per antenna: 4 of 16 angles above the middle.
    moving = echo(samples, chirps, distance=samples / 2 + 5, speed=7, angle=0.25)
    still = 50 * echo(samples, chirps, distance=3, speed=0, angle=0.0)
    if suffix == "npy":
        np.save(tmp_path / "r.npy", moving + still)
    else:
        savemat(tmp_path / "r.mat", {"data": moving + still})
    seen = readings.radar(tmp_path / f"r.{suffix}", (8, 16))
    assert seen.shape == (1, 8, 16)
    assert seen.dtype == np.float32
    assert np.unravel_index(seen[0].argmax(), (8, 16)) == (4, 12)
    # One reflector: 4 antennas and all samples add up in one range bin of those in the cell.
    assert seen.max() == pytest.approx(np.log1p(4 * samples / (samples / 8)), rel=1e-3)
    assert seen[0, 0].max() < 0.01


def test_radar_pools_more_antennas_than_angles(tmp_path):
    cube = echo(16, 8, distance=9, speed=2, angle=0.0, antennas=6)
    np.save(tmp_path / "r.npy", cube)
    seen = readings.radar(tmp_path / "r.npy", (16, 4))
    # 8 angles in pairs; the reflector at the middle one, index 4.
    assert np.unravel_index(seen[0].argmax(), (16, 4)) == (9, 2)


def test_a_radar_map_is_shrunk_by_means(tmp_path):
    np.save(tmp_path / "r.npy", np.arange(20.0).reshape(4, 5))
    seen = readings.radar(tmp_path / "r.npy", (2, 2))
    # Columns 0-1 and 2-4 of rows 0-1 and 2-3.
    assert np.allclose(np.expm1(seen[0]), [[3.0, 5.5], [13.0, 15.5]])


def test_the_variable_of_a_mat_file(tmp_path):
    savemat(tmp_path / "one.mat", {"anything": np.arange(3)})
    assert readings.numbers(tmp_path / "one.mat").tolist() == [[0, 1, 2]]
    savemat(tmp_path / "two.mat", {"a": np.arange(3), "b": np.arange(3)})
    with pytest.raises(DatasetError, match=r"two\.mat: holds 2 variables \(a, b\) and none is"):
        readings.numbers(tmp_path / "two.mat")
    savemat(tmp_path / "text.mat", {"data": "abc"})
    with pytest.raises(DatasetError, match=r"text\.mat: holds <U3, expected numbers"):
        readings.numbers(tmp_path / "text.mat")
    (tmp_path / "no.mat").write_bytes(b"no mat")
    with pytest.raises(DatasetError, match=r"no\.mat: cannot be read as numbers"):
        readings.numbers(tmp_path / "no.mat")


def lidar(path):
    return readings.lidar(path, (4, 8), 20.0)


def radar(path):
    return readings.radar(path, (4, 4))


def camera(path):
    return readings.camera(path, (4, 4), colour=True)


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (camera, "a.jpg", b"", r"a\.jpg: cannot be read as an image"),
        (camera, "a.png", b"\x89PNG\r\n\x1a\n", r"a\.png: cannot be read as an image"),
        (readings.power, "p.txt", b"", r"p\.txt: holds no beam's power"),
        (readings.power, "p.txt", b"nan nan", r"p\.txt: holds no beam's power"),
        (readings.power, "p.txt", b"0.1 high", r"p\.txt: cannot be read as numbers"),
        (readings.power, "p.txt", b"\xff\xfe1", r"p\.txt: cannot be read as numbers"),
        (readings.power, "p.npy", np.ones(3, complex), r"p\.npy: holds complex numbers"),
        (lidar, "l.csv", b"range,azimuth\n1,2\n", r"l\.csv: cannot be read as numbers"),
        (lidar, "l.csv", b"1,2\n1\n", r"l\.csv: cannot be read as numbers"),
        (lidar, "l.npy", np.ones(3), r"l\.npy: shape \(3,\); expected \(points, 2\)"),
        (lidar, "l.npy", np.array([{}]), r"l\.npy: cannot be read as numbers"),
        (lidar, "l.npy", np.array([["a", "b"]]), r"l\.npy: holds <U1, expected numbers"),
        (lidar, "l.ply", b"ply\nformat binary_little_endian 1.0\n", "not of the format ascii"),
        (lidar, "l.ply", PLY.format(count=2, more="").encode() + b"1 2 3 4\n", "ends after 1 of 2"),
        (
            lidar,
            "l.ply",
            b"ply\nformat ascii 1.0\nend_header\n",
            r"l\.ply: cannot be read as an AS",
        ),
        (lidar, "l.ply", b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "is not vertex"),
        (radar, "r.npy", np.full((4, 8, 8), np.nan), r"r\.npy: holds NaN or infinity"),
        (radar, "r.npy", np.full((4, 8, 8), np.inf), r"r\.npy: holds NaN or infinity"),
        (radar, "r.npy", np.ones((4, 8, 0)), r"r\.npy: holds no number"),
        (radar, "r.npy", np.ones(8), r"r\.npy: shape \(8,\); expected a cube"),
        (radar, "r.npy", np.ones((4, 3, 8)), r"3 ranges by 4 angles .*radar_bins = \[4, 4\]"),
        (radar, "r.npy", np.ones((9, 3)), r"9 ranges by 3 angles .*choose fewer"),
    ],
)
def test_unusable_files_are_named(tmp_path, read, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(DatasetError, match=message) as error:
        read(path)
    assert str(error.value).startswith(str(path))
