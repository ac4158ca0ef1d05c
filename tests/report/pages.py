"""What a page consists of, read by the standard library's parser."""

from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Elements, texts and attributes; complains about what is not nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.labels: list[str] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "not all elements are closed"

    def handle_starttag(self, tag, attrs):
        self._note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self._note(tag, dict(attrs))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if data.strip() and not {"style", "script"} & set(self.open):
            self.texts.append(data.strip())
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip()

    def _note(self, tag, attrs):
        self.tags[tag] += 1
        if "id" in attrs:
            self.ids[attrs["id"]] += 1
        if attrs.get("role") == "img":
            self.labels.append(attrs.get("aria-label", ""))
        for name in ("href", "src", "xlink:href"):
            if name in attrs:
                self.references.append(attrs[name])
