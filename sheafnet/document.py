"""A YAML file with overrides as plain values, and where each of them was given.

Nothing here knows what a key means. Values are of plain types only: a file from a stranger
executes nothing, and neither aliases nor depth make it take long.
"""

import difflib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sheafnet.errors import ConfigError

Key = tuple[str | int, ...]


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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        files = {p.stem: p for p in sorted(path.parent.glob("*.y*ml"))}
        near = difflib.get_close_matches(path.stem, list(files), n=1)
        hint = f" Did you mean {files[near[0]]}?" if near else ""
        raise ConfigError(f"{path}: no such file.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values, lines = _parse(text, str(path))
    given: dict[Key, str] = {}
    for override in overrides:
        for key in apply_override(values, override):
            for replaced in [k for k in given if len(k) > len(key) and k[: len(key)] == key]:
                del given[replaced]
            given[key] = f"--set {override}"
    return values, Origin(str(path), lines, given)


def _parse(text: str, source: str) -> tuple[dict[str, Any], dict[Key, int]]:
    lines: dict[Key, int] = {}
    walked: set[int] = set()
    """Nodes that need no second walk: behind aliases it would take exponential time."""
    open_: set[int] = set()

    def walk(node: yaml.Node, path: Key) -> None:
        lines[path] = node.start_mark.line + 1
        if id(node) in open_:
            raise ConfigError(f"{source}:{lines[path]}: an alias stands for what contains it.")
        if id(node) in walked:
            return
        walked.add(id(node))
        open_.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                line, name = key.start_mark.line + 1, str(key.value)
                if key.tag not in {_TEXT, _MERGE}:
                    what = f"the key {name}" if isinstance(key, yaml.ScalarNode) else "a key"
                    raise ConfigError(f"{source}:{line}: {what} is no text; put it in quotes.")
                if key.tag == _MERGE and isinstance(value, yaml.SequenceNode):
                    # PyYAML copies every mapping of the list: nested, that takes exponential time.
                    raise ConfigError(f"{source}:{line}: '<<' takes one mapping, not a list.")
                if name in seen:
                    raise ConfigError(
                        f"{source}:{line}: the key {name!r} stands twice; keep one of them."
                    )
                seen.add(name)
                walk(value, (*path, name))
                lines[(*path, name)] = line
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*path, index))
        open_.discard(id(node))

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            walk(root, ())
        values = plain(text)
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply for a topology.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: this is not YAML: {what}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: a topology is a mapping of keys; this is {_kind(values)}.")
    return values, lines


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def plain(text: str) -> Any:
    """The values of a YAML text of plain types.

    Raises:
        yaml.YAMLError: it is no YAML, or a scalar has not the form of its type (2020-13-45), for
            which PyYAML lets other exceptions through.
    """
    try:
        return yaml.safe_load(text)
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
        if path[-1] in {"dataset", "encoder", "method"}:
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
