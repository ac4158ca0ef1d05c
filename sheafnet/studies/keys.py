"""Configuration keys in a short form, and keys with several values: ``KEY=V1,V2,...``.

A key may be given by its last words, as long as they belong to one key only: ``temperature`` is
``training.temperature``, ``missing.probability`` is ``inference.missing_probability``. A key that
ends in just these words after a dot goes before others: ``noise`` is ``dataset.noise``.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from sheafnet.config import Config, Model, Named
from sheafnet.datasets import DATASETS
from sheafnet.document import plain
from sheafnet.errors import ConfigError
from sheafnet.nodes.encoders import ENCODERS


@dataclass(frozen=True)
class Axis:
    """A configuration key and the values that it takes, as typed."""

    key: str
    """The whole key, dotted."""
    texts: tuple[str, ...]

    @property
    def values(self) -> tuple[Any, ...]:
        """The values as YAML reads them."""
        return tuple(plain(text) for text in self.texts)

    @property
    def overrides(self) -> tuple[str, ...]:
        """An override for each value."""
        return tuple(f"{self.key}={text}" for text in self.texts)

    def name(self, axes: "Sequence[Axis]") -> str:
        """The last word of the key, or all of it where another of `axes` ends in the same."""
        last = self.key.rpartition(".")[2]
        alike = [axis for axis in axes if axis.key.rpartition(".")[2] == last]
        return last if len(alike) < 2 else self.key


def known_keys() -> tuple[str, ...]:
    """Every dotted key of a configuration, options of all data sets and encoders included.

    Keys of single nodes and edges (``nodes.0.modality``) are not among them.
    """
    return tuple(dict.fromkeys(_below(Config, ())))


def _below(model: type[Model], path: tuple[str, ...]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = (*path, name)
        yield ".".join(here)
        for inner in _models(field.annotation):
            if issubclass(inner, Named):
                # An objective is somebody's, and its options are not known before it is loaded.
                kinds = {"dataset": DATASETS, "encoder": ENCODERS}.get(name, {})
                yield from (".".join((*here, option)) for option in ("name", *_options(kinds)))
            else:
                yield from _below(inner, here)


def _models(annotation: Any) -> Iterator[type[Model]]:
    """The models that a value can be; those of a list's entries have positions, not keys."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    elif getattr(annotation, "__origin__", None) is not tuple:
        for argument in get_args(annotation):
            yield from _models(argument)


def _options(kinds: Any) -> Iterator[str]:
    for kind in kinds.values():
        yield from kind.options.model_fields


def resolve_key(given: str, option: str) -> str:
    """The whole key that `given` stands for.

    Args:
        given: a dotted key, or the last words of one.
        option: where it was given, for the message.

    Raises:
        ConfigError: it stands for no key, or for several; names the nearest, or all of them.
    """
    known = known_keys()
    if given in known or re.match(r"(nodes|edges|links)\.\d+(\.|$)", given):
        return given
    words = _words(given)
    found = [key for key in known if key.endswith(f".{given}")] or [
        key for key in known if _words(key)[-len(words) :] == words
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{option}: {given} could be {', '.join(found[:-1])} or {found[-1]}; write one of them."
        )
    ends = {".".join(part[k:]): key for key in known for part in [_words(key)] for k in range(4)}
    near = difflib.get_close_matches(".".join(words), [*ends], n=1, cutoff=0.6)
    hint = f" Did you mean {ends[near[0]]}?" if near else ""
    if {"dataset", "encoder", "objective"} & set(given.split(".")[:-1]):
        hint += " An option of a plug-in is varied with the whole mapping (docs/plugins.md)."
    raise ConfigError(
        f"{option}: {given}: no such key.{hint} docs/configuration.md lists all of them."
    )


def _words(key: str) -> list[str]:
    return key.replace("_", ".").split(".")


def read_axis(given: str, option: str) -> Axis:
    """``KEY=V1,V2,...`` with YAML values; a comma inside brackets or quotes separates nothing.

    Args:
        given: what was typed.
        option: the option that it was typed for, for the message.

    Raises:
        ConfigError: it is malformed, a value is no YAML or stands twice, or the key is not known.
    """
    where = f"{option} {given}"
    key, separator, text = given.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"{where}: must be KEY=V1,V2, as in {option} training.temperature=0.1,0.2"
        )
    axis = Axis(resolve_key(key, where), tuple(split_values(text, where)))
    for typed in axis.texts:
        try:
            plain(typed)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"{where}: {typed!r} is not a YAML value.") from None
    seen: list[Any] = []
    for value, typed in zip(axis.values, axis.texts, strict=True):
        if any(value == other and type(value) is type(other) for other in seen):
            raise ConfigError(f"{where}: the value {typed} stands twice; keep one of them.")
        seen.append(value)
    return axis


def read_axes(given: Sequence[str], option: str) -> tuple[Axis, ...]:
    """Several ``KEY=V1,V2,...``, of different keys, none of which is ``run.*``.

    Raises:
        ConfigError: as `read_axis` does; or a key stands twice, or changes no result.
    """
    axes = tuple(read_axis(text, option) for text in given)
    for index, axis in enumerate(axes):
        refuse_run(axis.key, f"{option} {given[index]}")
        if axis.key in {other.key for other in axes[:index]}:
            raise ConfigError(f"{option} {given[index]}: {axis.key} stands twice; join the values.")
    return axes


def refuse_run(key: str, where: str) -> None:
    """Refuse a key under ``run``, which a study sets itself.

    Raises:
        ConfigError: `key` is one.
    """
    if key.split(".")[0] == "run":
        what = "the seeds are those of --seeds" if key == "run.seed" else "it changes no figure"
        raise ConfigError(f"{where}: {key} cannot be studied: {what}.")


def split_values(text: str, where: str) -> list[str]:
    """The texts between the commas of `text` that stand outside brackets and quotes.

    Raises:
        ConfigError: one of them is empty.
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and parts[-1].rstrip()[-1:] in ("", ",", ":", "[", "{"):
            quote = letter
        depth += 0 if quote else (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    texts = [part.strip() for part in parts]
    if not all(texts):
        raise ConfigError(f"{where}: a value is empty; write V1,V2 without gaps.")
    return texts
