"""A real browser without a window, for tests that look at pages."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")

DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


def open_page(page: Path, profile: Path, options: Sequence[str] = (), budget_ms: int = 4000) -> Any:
    """Open `page` and return what it leaves as JSON in its element ``probe``.

    Whatever the page, or a frame in it, writes to the console is an error.
    """
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless", "--disable-gpu", "--no-first-run", "--disable-quic"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        f"--user-data-dir={profile}",
        *("--enable-logging=stderr", f"--virtual-time-budget={budget_ms}", "--dump-dom"),
        *("--window-size=1500,1000", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.findall(r"CONSOLE.*", done.stderr) == []
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, "the page did not finish"
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
