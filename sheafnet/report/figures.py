"""How a matplotlib figure becomes part of a page, and files beside it."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sheafnet.report.charts import INK
from sheafnet.studies.folder import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEAD = re.compile(r".*?(?=<svg)", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"', re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def inline_svg(figure: "Figure", name: str, description: str) -> str:
    """The figure as an ``<svg>`` element that takes the page's text colour, font and width.

    Args:
        figure: to be drawn.
        name: unlike that of any other figure of the page; what it refers to inside is named by it.
        description: for those who do not see it, as plain text.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = _METADATA.sub("", _HEAD.sub("", stream.getvalue(), count=1))
    text = _SIZE.sub(r"\1\2", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).replace(
        INK, "currentColor"
    )


def write_files(figure: "Figure", folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png, in black on white.

    Raises:
        StudyError: they cannot be written.
    """
    for suffix in (".svg", ".png"):
        with replacing(folder / f"{name}{suffix}") as aside:
            figure.savefig(aside, dpi=200, facecolor="white")
