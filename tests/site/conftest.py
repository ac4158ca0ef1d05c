"""The documentation site, built once for all tests that look at it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the HTML; a warning of Sphinx fails the build, and with it every test.

    Parallel processes share it: the first one builds, the others wait.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    html = folder / "site" / "html"
    with (folder / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (html / "searchindex.js").is_file():  # the last file that Sphinx writes
            command = [sys.executable, "-m", "sphinx", "-c", "docs", "-W", "--keep-going", "-q"]
            command += ["-d", str(folder / "site" / "doctrees"), ".", str(html)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return html
