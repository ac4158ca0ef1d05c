"""Whole files, written aside and renamed: a crash or a power cut leaves the old one or the new."""

import os
from contextlib import suppress
from pathlib import Path

from sheafnet.errors import RunDirectoryError


def replace_file(path: Path, content: str | bytes) -> None:
    """Replace `path` as a whole.

    Raises:
        RunDirectoryError: the disk is full, or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it where they are not there.

    Raises:
        RunDirectoryError: the disk is full, or a folder above cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder}: cannot be written: {error.strerror}.") from None
