"""Every page of the site in a real browser, at the width of a phone and of a desk."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser import DARK, needs_browser, open_page

pytestmark = [needs_browser, pytest.mark.xdist_group("site")]

FRAMES = """<!doctype html>
<meta charset="utf-8">
<body>
<script>
const pages = PAGES, told = [];
const frame = document.createElement("iframe");
frame.height = 900;
frame.style.border = "0";
document.body.append(frame);
function seen(page, width) {
  const inner = frame.contentWindow, root = inner.document.documentElement;
  const pictures = [...inner.document.querySelectorAll("article img")];
  const article = inner.document.querySelector("article");
  return {
    page, width: inner.innerWidth, inside: root.clientWidth, scroll: root.scrollWidth,
    pictures: pictures.length,
    shown: pictures.filter((img) => img.complete && img.naturalWidth > 0
      && img.getBoundingClientRect().width > 200).length,
    text: article ? article.innerText.length : 0,
    ground: inner.getComputedStyle(inner.document.body).backgroundColor,
    ink: inner.getComputedStyle(article || root).color,
  };
}
async function look() {
  for (const width of [375, 1440]) {
    frame.width = width;
    for (const page of pages) {
      await new Promise((loaded) => { frame.onload = loaded; frame.src = page; });
      told.push(seen(page, width));
    }
  }
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(told);
  document.body.append(place);
}
look();
</script>
"""


def look(site: Path, folder: Path, pages: list[str], *options: str) -> list[dict[str, Any]]:
    """What a script sees of each page, in a frame as wide as the window of a reader."""
    addresses = [(site / page).as_uri() for page in pages]
    frames = folder / "frames.html"
    frames.write_text(FRAMES.replace("PAGES", json.dumps(addresses)), encoding="utf-8")
    near = "--allow-file-access-from-files"
    told = open_page(frames, folder / "profile", (near, *options), budget_ms=60_000)
    assert isinstance(told, list)
    return told


def test_pages_fit_phones_and_desks_and_show_their_pictures(site: Path, tmp_path: Path) -> None:
    pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    pages.remove("index.html")  # which goes on to docs/index.html
    told = look(site, tmp_path, pages)
    assert [seen["width"] for seen in told] == [375] * len(pages) + [1440] * len(pages)
    for seen in told:
        where = f"{seen['page']} at {seen['width']}"
        assert seen["scroll"] <= seen["inside"], f"{where}: wider than the window"
        assert seen["shown"] == seen["pictures"], f"{where}: a picture is not shown"
        assert seen["text"] > 20 or seen["page"].endswith("search.html"), where
    pictures = dict(zip(pages, (seen["pictures"] for seen in told), strict=False))
    concepts = [pictures[f"docs/concepts/{name}.html"] for name in ("sheaf", "round", "counted")]
    assert concepts == [2, 2, 1]
    assert pictures["README.html"] == 1
    assert pictures["experiments/RESULTS.html"] > 10


def test_a_dark_desktop_gets_a_dark_page(site: Path, tmp_path: Path) -> None:
    light, *_ = look(site, tmp_path, ["docs/index.html"])
    dark, *_ = look(site, tmp_path, ["docs/index.html"], *DARK)
    brightness = [sum(map(int, seen["ground"][4:-1].split(","))) for seen in (light, dark)]
    assert brightness[0] > 700
    assert brightness[1] < 120
    assert light["ink"] != dark["ink"]
