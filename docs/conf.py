"""The documentation site, built by Sphinx with MyST and the theme Furo: ``make docs``.

The source of the site is the whole repository, so that README.md, CHANGELOG.md and the others are
pages of it, and every relative link is the same on the site, in a checkout and on GitHub.
"""

from typing import Any

import typer
from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from sheafnet.cli import app as command_line
from sheafnet.version import __version__

project = "sheafnet"
author = "The sheafnet engineers"
project_copyright = author
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "experiments/RESULTS.md", "examples/**.md"]
exclude_patterns = ["docs/_build"]
nitpicky = True
# The site is read offline, so that what other projects document is no link, nor are types that the
# page of the API leaves out.
nitpick_ignore_regex = [
    ("py:class", r"(numpy|np|npt|torch|nn|pathlib|collections|typing|pydantic|sheafnet)\..*"),
    ("py:class", r"_PydanticGeneralMetadata|Loss|Estimate"),
]

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "literal"

html_theme = "furo"
html_title = f"sheafnet {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "forward.html"}
html_domain_indices = False
html_copy_source = False
html_show_sphinx = False


def write_commands(_: Sphinx, page: str, source: list[str]) -> None:
    """Put what the command line says of itself below the introduction of its page."""
    if page == "docs/commands":
        group: Any = typer.main.get_command(command_line)
        context = group.make_context("sheafnet", [], resilient_parsing=True)
        text = get_docs_for_click(obj=group, ctx=context, name="sheafnet")
        source[0] += text.partition("\n")[2]  # below its title


def leave_folders(app: Sphinx, doctree: document) -> None:
    """A link to a folder of the repository is one on GitHub, and plain text on the site."""
    here = (app.srcdir / app.env.docname).parent
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] == "myst" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", write_commands)
    app.connect("doctree-read", leave_folders)
