"""A YAML file, or what a program gives, with overrides as plain values, and where each was given.

Nothing here knows what a key means. Values are of plain types only: a file from a stranger
executes nothing. Its size, its depth, and the number of values that it holds, aliases written out,
are bounded, so that it takes neither long nor much memory.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sheafnet.errors import ConfigError

Key = tuple[str | int, ...]

MAX_BYTES = 1 << 24
MAX_VALUES = 500_000
"""Of a file: keys, scalars, lists and mappings, as written and with every alias written out."""
MAX_DEPTH = 64


@dataclass(frozen=True, eq=False)
class Origin:
    """Where values were given: a source, the lines of its keys, and overrides on top of it.

    All origins are equal: where a configuration was read does not make it another one.
    """

    source: str = ""
    lines: Mapping[Key, int] = field(default_factory=dict)
    overrides: Mapping[Key, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return hash(Origin)

    def locate(self, *key: str | int) -> str:
        """``file:line`` of `key` or of what is nearest above it, or the override that gave it."""
        above = [key[:n] for n in range(len(key), 0, -1)]
        given = next((self.overrides[k] for k in above if k in self.overrides), None)
        below = [o for k, o in self.overrides.items() if len(k) > len(key) and k[: len(key)] == key]
        if given is not None:
            return " ".join(dict.fromkeys([given, *below]))
        if below:
            return f"{self.source} with {' '.join(dict.fromkeys(below))}"
        line = next((self.lines[k] for k in above if k in self.lines), None)
        return self.source if line is None else f"{self.source}:{line}"


def read(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origin]:
    """The values of the YAML at `path` under overrides of the form ``a.b=c``, and their origin.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or an override is malformed.
    """
    path = Path(path)
    try:
        text = read_text(path)
    except FileNotFoundError:
        files = {p.stem: p for p in sorted(path.parent.glob("*.y*ml"))}
        near = difflib.get_close_matches(path.stem, list(files), n=1)
        hint = f" Did you mean {files[near[0]]}?" if near else ""
        raise ConfigError(f"{path}: no such file.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values, lines = parse(text, str(path))
    return values, _overridden(values, overrides, Origin(str(path), lines))


def take(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origin]:
    """The values that a program gives, as `read` returns those of a file; `values` stay as is.

    Tuples become lists, paths text, numbers of numpy those of Python.

    Raises:
        ConfigError: a value is of another type, a key is no text, or an override is malformed.
    """
    origin = Origin("configuration")
    taken: dict[str, Any] = _taken(values, ())
    return taken, _overridden(taken, overrides, origin)


def _overridden(values: dict[str, Any], overrides: Sequence[str], origin: Origin) -> Origin:
    """Apply `overrides` to `values` of `origin`; their origin with them."""
    given: dict[Key, str] = {}
    for override in overrides:
        for key in apply_override(values, override):
            for replaced in [k for k in given if len(k) > len(key) and k[: len(key)] == key]:
                del given[replaced]
            given[key] = f"--set {override}"
    return Origin(origin.source, origin.lines, given)


def _taken(value: Any, path: Key) -> Any:
    here = ".".join(map(str, path))
    if len(path) > MAX_DEPTH:
        raise ConfigError("configuration: nested too deeply for a topology.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                below = f"{here}: " if path else ""
                raise ConfigError(f"configuration: {below}the key {key!r} is no text.")
        return {key: _taken(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_taken(item, (*path, at)) for at, item in enumerate(value)]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Integral | Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(
        f"configuration: {here}: is of the type {type(value).__name__}; a configuration is made of "
        "text, numbers, true or false, None, paths, and lists and mappings of these."
    )


def read_text(path: Path) -> str:
    """The text of the file at `path`.

    Raises:
        OSError: it cannot be read, or has more than `MAX_BYTES`.
        UnicodeDecodeError: it is no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"it has more than {MAX_BYTES >> 20} MiB")
    return content.decode("utf-8")


def parse(text: str, source: str) -> tuple[dict[str, Any], dict[Key, int]]:
    """The values of a YAML mapping, and the lines of its keys.

    Raises:
        ConfigError: `text` is none, or is beyond the bounds; names `source` and the line.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        lines = _Walk(source).lines_of(root)
        values = _construct(loader, root)
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply for a topology.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        what = getattr(error, "problem", None) or str(error)
        trouble = what if isinstance(error, _TooMuchError) else f"this is not YAML: {what}"
        raise ConfigError(f"{where}: {trouble}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: a topology is a mapping of keys; this is {_kind(values)}.")
    return values, lines


class _TooMuchError(yaml.MarkedYAMLError):
    """It is YAML, but too much of it."""


class _Loader(yaml.SafeLoader):
    """Plain types only; ends where a text is nested too deeply or holds too many values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        if self._values > MAX_VALUES:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise _TooMuchError(
                problem=f"more than {MAX_VALUES:,} values", problem_mark=event.start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Walk:
    """One walk over the nodes of a text: each is looked at once, however many aliases it has."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[Key, int] = {}
        self._written_out: dict[int, int] = {}
        """Values that a node stands for with every alias written out, or 0 inside it."""

    def lines_of(self, root: yaml.Node | None) -> dict[Key, int]:
        if root is not None:
            self._walk(root, ())
        return self._lines

    def _walk(self, node: yaml.Node, path: Key) -> int:
        line = self._lines[path] = node.start_mark.line + 1
        known = self._written_out.get(id(node))
        if known == 0:
            raise self._error(line, "an alias stands for what contains it")
        if known is not None:
            return known
        self._written_out[id(node)] = 0
        count = 1
        if isinstance(node, yaml.MappingNode):
            count += self._walk_keys(node, path)
        elif isinstance(node, yaml.SequenceNode):
            count += sum(self._walk(item, (*path, at)) for at, item in enumerate(node.value))
        if count > MAX_VALUES:
            raise self._error(line, f"its aliases stand for more than {MAX_VALUES:,} values")
        self._written_out[id(node)] = count
        return count

    def _walk_keys(self, node: yaml.MappingNode, path: Key) -> int:
        seen, count = set(), 0
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if key.tag not in {_TEXT, _MERGE}:
                what = f"the key {name}" if isinstance(key, yaml.ScalarNode) else "a key"
                raise self._error(line, f"{what} is no text; put it in quotes")
            if key.tag == _MERGE and isinstance(value, yaml.SequenceNode):
                # PyYAML copies every mapping of the list: nested, that takes exponential time.
                raise self._error(line, "'<<' takes one mapping, not a list")
            if name in seen:
                raise self._error(line, f"the key {name!r} stands twice; keep one of them")
            seen.add(name)
            count += 1 + self._walk(value, (*path, name))
            self._lines[(*path, name)] = line
        return count

    def _error(self, line: int, what: str) -> ConfigError:
        return ConfigError(f"{self._source}:{line}: {what}.")


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def plain(text: str) -> Any:
    """The values of a YAML text of plain types.

    Raises:
        yaml.YAMLError: it is no YAML, holds too many values, or a scalar has not the form of its
            type (2020-13-45).
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    return _construct(loader, loader.get_single_node())


def _construct(loader: _Loader, root: yaml.Node | None) -> Any:
    """The values of `root`. PyYAML lets other exceptions through where a scalar is wrong."""
    try:
        return None if root is None else loader.construct_document(root)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, yaml.YAMLError):
            raise
        raise yaml.YAMLError(f"a value has not the form of its type ({error})") from None


def _kind(value: object) -> str:
    return {"NoneType": "empty", "str": "one text", "list": "a list"}.get(
        type(value).__name__, "one value"
    )


def apply_override(values: dict[str, Any], override: str) -> list[Key]:
    """Set one key of `values` as ``a.b=c`` says.

    Returns the path of the key, after that of the parent that had to be made, if any.

    Raises:
        ConfigError: `override` is malformed, or its key cannot be there.
    """
    key, separator, text = override.partition("=")
    if not separator or not key or not all(key.split(".")):
        raise ConfigError(
            f"--set {override}: must be key=value, as in --set training.temperature=0.2"
        )
    try:
        value = plain(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value.") from None
    left = key.split(".")
    at: Any = values
    path: Key = ()
    made: list[Key] = []
    while True:
        part = left.pop(0)
        step: Any = _index(at, part, override) if isinstance(at, list) else part
        path = (*path, step)
        if not left:
            at[step] = value
            return [*made, path]
        child = at[step] if isinstance(at, list) else at.get(step)
        if child is None:
            child = {}
            made = made or [path]
        if path[:-1] == ("edges",) and isinstance(child, list) and left[0].isdecimal():
            left.insert(0, "between")
        # A copy, since an alias may stand for the same object elsewhere in the file.
        at[step] = at = copy(_long_form(child, path))
        if not isinstance(at, dict | list):
            here = ".".join(map(str, path))
            raise ConfigError(f"--set {override}: {here} is a value, it has no keys.")


def _long_form(value: Any, path: Key) -> Any:
    """What was given in its short form (a name, an id, two ends) as the mapping it stands for."""
    if isinstance(value, str):
        if path[-1] in {"dataset", "encoder", "method", "objective"}:
            return {"name": value}
        if path[:-1] == ("inference", "estimators"):
            return {"name": value}
        if path[:-1] == ("nodes",):
            return {"id": value}
    if isinstance(value, list) and path[:-1] == ("edges",):
        return {"between": value}
    return value


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        bound = f"must be a position from 0 to {len(items) - 1}" if items else "is in an empty list"
        raise ConfigError(f"--set {override}: {part!r} {bound}.")
    return int(part)
