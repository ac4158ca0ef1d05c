"""The page in a real browser: no error in its console, figures there, and nothing cut off."""

from collections.abc import Callable

import pytest

import sheafnet
from sheafnet.report.page import write_report
from tests.browser import DARK, needs_browser, open_page
from tests.conftest import STORM, MakeConfig

pytestmark = needs_browser

PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const box = (e) => e.getBoundingClientRect();
  const figures = [...document.querySelectorAll("figure svg")];
  const texts = [...document.querySelectorAll("figure svg text")];
  const table = document.querySelector("table[data-sortable]");
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[6].textContent);
  const before = column();
  const button = table.tHead.rows[0].cells[6].querySelector("button");
  button.click();
  const down = column();
  button.click();
  const up = column();
  parent.postMessage(JSON.stringify({
    width: innerWidth, inside: document.documentElement.clientWidth,
    scroll: document.documentElement.scrollWidth,
    figures: figures.length,
    seen: figures.filter((figure) => box(figure).width > 200 && box(figure).height > 60).length,
    small: texts.filter((text) => text.textContent.trim() && box(text).height < 5).length,
    ink: getComputedStyle(figures[0]).color,
    black: texts.filter((text) => getComputedStyle(text).fill === "rgb(0, 0, 0)").length,
    ground: getComputedStyle(document.body).backgroundColor,
    before, down, up,
  }), "*");
}, 50));
</script>
</body>
"""
FRAME = """<!doctype html>
<iframe width="{width}" height="900" style="border: 0" src="probed.html"></iframe>
<script>
addEventListener("message", (event) => {{
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = event.data;
  document.body.append(place);
}});
</script>
"""
"""A window of Chromium is no narrower than 500 pixels; a frame in it is as narrow as a phone."""

Look = Callable[..., dict]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory, tiny: MakeConfig) -> Look:
    """Opens the report of two runs, and tells what a script in it sees."""
    folder = tmp_path_factory.mktemp("browser")
    images = (
        "dataset={name: multiview-mnist}",
        "defaults.node.encoder={name: mlp, hidden: [16]}",
        "nodes=[a, b, c]",
        "edges=[[a, b], [b, c], [c, a]]",
    )
    sheafnet.simulate(tiny("evaluation.every=2", STORM), run_dir=folder / "stormy")
    sheafnet.simulate(tiny(*images), run_dir=folder / "pictures")
    write_report([folder / "stormy", folder / "pictures"], folder / "report.html")
    page = folder / "probed.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", PROBE))

    def open_(width: int, *options: str) -> dict:
        frame = folder / f"frame-{width}.html"
        frame.write_text(FRAME.format(width=width))
        told = open_page(frame, folder / f"profile-{width}", options)
        assert isinstance(told, dict)
        return told

    return open_


@pytest.mark.parametrize("width", [375, 1440])
def test_figures_are_there_and_nothing_is_cut_off(look: Look, width: int) -> None:
    told = look(width)
    assert told["width"] == width
    assert told["scroll"] <= told["inside"]  # tables scroll in themselves
    assert told["seen"] == told["figures"] > 15
    assert told["small"] == 0


def test_columns_sort_by_number_both_ways(look: Look) -> None:
    told = look(1440)
    numbers = [[int(text.replace(",", "")) for text in told[k]] for k in ("before", "down", "up")]
    assert numbers[1] == sorted(numbers[0], reverse=True)
    assert numbers[2] == sorted(numbers[0])
    assert numbers[0] not in numbers[1:]


def test_figures_take_the_colours_of_a_dark_page(look: Look) -> None:
    light, dark = (
        look(1440),
        look(1440, *DARK),
    )
    assert light["ink"] != dark["ink"]
    assert light["ground"] == "rgb(255, 255, 255)"
    assert dark["ground"] == "rgb(20, 23, 28)"
    assert dark["black"] == 0
