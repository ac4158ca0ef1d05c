"""Executes the notebook of the examples: in place, as `make notebook` does, or for its test."""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"
_QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "OMP_NUM_THREADS": "1"}


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook at `path` with what a kernel of this environment makes of it.

    Args:
        path: of the notebook, which stays as it is.
        folder: where the kernel works; its temporary files and those of Jupyter are below it.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    own = {name: str(folder / name) for name in ("IPYTHONDIR", "MPLCONFIGDIR", "TMPDIR")}
    for below in own.values():
        Path(below).mkdir()
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=120,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as short:  # the path of a Unix socket has 107 bytes at most
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.ip = "ipc", f"{short}/kernel"
        client.execute(env={**os.environ, **own, **_QUIET})
    notebook.metadata.language_info = {"name": "python"}  # without this machine's version
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        nbformat.write(executed(TOUR, Path(scratch)), TOUR)
