"""Whole files, written aside and renamed: a crash leaves the old one or the new one."""

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
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None
