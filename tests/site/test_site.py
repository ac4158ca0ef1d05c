"""The site as files: every link and anchor resolves, nothing is fetched, nothing is left out."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml

import sheafnet
from sheafnet import cli
from tests.report.pages import Page

pytestmark = pytest.mark.xdist_group("site")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if path.relative_to(site) != Path("index.html")
    }


def test_links_and_anchors_resolve(site: Path, pages: dict[Path, Page]) -> None:
    checked = 0
    for path, page in pages.items():
        for reference in page.references:
            parts = urlsplit(unescape(reference))
            if parts.scheme:
                assert parts.scheme in {"http", "https", "mailto", "data"}, reference
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.is_file(), f"{path.relative_to(site)}: {reference}"
            if parts.fragment and there in pages:
                anchor = unquote(parts.fragment)
                assert anchor in pages[there].ids, f"{path.relative_to(site)}: {reference}"
            checked += 1
    assert checked > 1000


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(https?:[^"]*)', text
        )
        assert loaded == [], path.name
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", text), path.name
        assert "@import" not in text, path.name


def test_every_page_of_the_repository_is_there(site: Path) -> None:
    sources = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for source in sources:
        if "_build" not in source.parts:
            made = site / source.relative_to(ROOT).with_suffix(".html")
            assert made.is_file(), source


def test_the_pages_of_reference_have_all_names(site: Path, pages: dict[Path, Page]) -> None:
    api = pages[site / "docs" / "api.html"]
    for name in set(sheafnet.__all__) - {"__version__"}:
        assert f"sheafnet.{name}" in api.ids, name
    commands = (site / "docs" / "commands.html").read_text(encoding="utf-8")
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f'id="sheafnet-{name}"' in commands
        for parameter in command.params:
            for option in parameter.opts:
                assert option in commands, f"{name} {option}"


def test_the_first_page_leads_to_the_documentation(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert 'content="0; url=docs/index.html"' in text
    assert (site / "docs" / "index.html").is_file()


def test_the_citation_is_of_this_version_and_of_the_paper_of_the_readme() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == sheafnet.__version__
    paper = cited["preferred-citation"]
    authors = [f"{who['family-names']}, {who['given-names']}" for who in paper["authors"]]
    (entry,) = re.findall(r"```bibtex\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert paper["title"] in entry
    assert " and ".join(authors) in entry.replace("{", "").replace("}", "")
    assert entry in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
