"""Code of others, named in the YAML: by an entry point, or by a path ``module:attribute``.

A name that is none of sheafnet's own is looked up among the entry points of installed
distributions, in the group of its kind, and a path is imported. Nothing is loaded before a run
names it, and nothing that a file of a run names is loaded by looking at the run. What the code then
raises, or gives back in another form than was agreed, becomes a `PluginError` that says whose it
is.
"""

import importlib
import importlib.metadata
import os
import re
import signal
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sheafnet.document import Key, Origin
from sheafnet.errors import ConfigError, DivergenceError, PluginError, SheafnetError
from sheafnet.validation import Model, check_model, nearest

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_NONE: Mapping[str, Any] = {}
_FOUND: dict[tuple[str, str], Any] = {}
"""What was found of others, by group and name."""


@dataclass(frozen=True)
class Code(Generic[T]):
    """Something that the YAML names, and whose code it is.

    Args:
        noun: what it is, as ``encoder``.
        name: what the YAML calls it.
        value: the thing itself.
        path: where it stands, ``module:attribute`` or ``module``; empty for sheafnet's own.
        distribution: name and version of what installed it, where that is known.
    """

    noun: str
    name: str
    value: T
    path: str = ""
    distribution: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is sheafnet's own, whose defects keep their traceback."""
        return not self.path

    @contextmanager
    def guard(self, doing: str, place: str) -> Iterator[None]:
        """Run a part of the code; what it raises becomes its own.

        Args:
            doing: which part, as ``its forward``.
            place: file and key, or node and round.

        Raises:
            PluginError: it raised something; what sheafnet raises on purpose passes.
        """
        with guard((self,), doing, place):
            yield

    @contextmanager
    def computing(self, doing: str, device: "torch.device", place: str) -> Iterator[None]:
        """`guard` of what runs in a round, which must not draw from torch's global generators.

        A process has one of these for all its nodes, so that what a node drew would depend on which
        others it shares the process with (laws 1 and 5).

        Raises:
            PluginError: it raised something, or drew.
        """
        before = _generators(device)
        with self.guard(doing, place):
            yield
        if not self.ours and _generators(device) != before:
            raise self.refuse(
                f"drew from torch's global generator in {doing}, as Dropout does: results would "
                "depend on what else the process computes",
                place,
            )

    def options(
        self, given: Mapping[str, Any], source: str | Origin, prefix: Key, place: str
    ) -> Model:
        """The checked options of a kind that has some; `source` and `prefix` as of `check_model`.

        Raises:
            ConfigError: an option is unknown or wrong.
            PluginError: the check is somebody else's, and fails.
        """
        kind: Any = self.value
        with self.guard("its options", place):
            checked: Model = check_model(kind.options, given, source=source, prefix=prefix)
            return checked

    def refuse(self, what: str, place: str) -> PluginError:
        """The error, to be raised, that the code gave back what it must not."""
        return PluginError(f"{place}: {self._whose()} {what}. {_REMEDY}")

    def tensor(
        self, found: object, shape: tuple[int, ...], device: "torch.device", place: str
    ) -> "torch.Tensor":
        """`found`, if it is a float32 tensor of `shape` on `device`.

        Raises:
            PluginError: it is something else.
        """
        import torch

        if not isinstance(found, torch.Tensor):
            raise self.refuse(f"gave {_a(found)}, where a tensor belongs", place)
        if found.dtype != torch.float32:
            raise self.refuse(f"gave a tensor of {found.dtype}; it has to be float32", place)
        if found.shape != shape:
            raise self.refuse(f"gave the shape {tuple(found.shape)}; it has to be {shape}", place)
        if found.device.type != device.type:
            raise self.refuse(
                f"gave a tensor on {found.device}; the node computes on {device}", place
            )
        return found

    def array(
        self, found: object, shape: tuple[int, ...], dtype: type[np.generic], place: str
    ) -> npt.NDArray[Any]:
        """`found`, if it is an array of `shape` and `dtype` without NaN and infinity.

        Raises:
            PluginError: it is something else.
        """
        if not isinstance(found, np.ndarray):
            raise self.refuse(f"gave {_a(found)}, where an array belongs", place)
        if found.dtype != dtype:
            raise self.refuse(
                f"gave an array of {found.dtype}; it has to be {np.dtype(dtype)}", place
            )
        if found.shape != shape:
            raise self.refuse(f"gave the shape {found.shape}; it has to be {shape}", place)
        if not np.isfinite(found).all():
            raise self.refuse("gave NaN or infinity", place)
        return found

    def diverged(self, place: str) -> DivergenceError:
        """The error, to be raised, that the code gave NaN or infinity while parameters move."""
        return DivergenceError(
            f"{place}: {self._whose()} gave NaN or infinity. Either it does so by itself, or "
            "training diverged: try a lower training.learning_rate."
        )

    def _failed(self, doing: str, place: str, error: BaseException) -> PluginError:
        return _failure((self,), doing, place, error)

    def _whose(self) -> str:
        whose = self.distribution or distribution_of(self.path)
        source = ", ".join(part for part in (self.path, whose) if part and part != self.name)
        return f"the {self.noun} {self.name!r}{source and f' ({source})'}"


@contextmanager
def guard(codes: Sequence[Code[Any]], doing: str, place: str) -> Iterator[None]:
    """`Code.guard` of what several have a part in: blamed are those of whose files a frame failed.

    Raises:
        PluginError: something was raised that is not of sheafnet; names all, where no frame tells.
    """
    try:
        yield
    except SheafnetError:
        raise
    except (Exception, SystemExit) as error:
        others = [code for code in codes if not code.ours]
        if not others or _of_a_signal(error):
            raise
        guilty = [code for code in others if _frames(error, code.path)]
        raise _failure(guilty or others, doing, place, error) from error


def _failure(
    codes: Sequence[Code[Any]], doing: str, place: str, error: BaseException
) -> PluginError:
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    whose = " or ".join(code._whose() for code in codes)
    return PluginError(
        f"{place}: {whose} failed in {doing}: {what} ({_where(error, codes[0].path)}). {_REMEDY}"
    )


_REMEDY = "It is no code of sheafnet: mend it there, or tell its authors."


@dataclass(frozen=True)
class Group(Generic[T]):
    """A kind of thing that others may add.

    Args:
        noun: what it is called in messages.
        name: of its group of entry points.
        expects: the class of which an entry point or a path must be an instance.
        own: the names that are sheafnet's own, which no plug-in can take.
    """

    noun: str
    name: str
    expects: type[T]
    own: Collection[str] = ()

    def find(self, name: str, place: str) -> Code[T] | None:
        """What others call `name`, loaded; None where nobody does.

        Args:
            name: of an entry point, or a path.
            place: file and key, for messages.

        Raises:
            ConfigError: the path leads nowhere or to another kind of thing, or two distributions
                have that name.
            PluginError: a module fails while it is imported.
        """
        if (self.name, name) not in _FOUND:
            if ":" in name:
                _FOUND[self.name, name] = self._load(Code(self.noun, name, None, name), place)
            elif (entry := self._entry(name, place)) is not None:
                code = Code(self.noun, name, None, entry.value, distribution(entry))
                _FOUND[self.name, name] = self._load(code, place)
        found: Code[T] | None = _FOUND.get((self.name, name))
        return found

    def known(self, own: Collection[str]) -> list[str]:
        """`own`, and the names of installed plug-ins, to suggest."""
        return list(dict.fromkeys([*own, *(entry.name for entry in self.installed())]))

    def named(self, name: str, place: str, own: Mapping[str, T] = _NONE) -> Code[T]:
        """What is called `name` in `own`, which is sheafnet's, or by others.

        Raises:
            ConfigError: there is none.
            PluginError: its module fails while it is imported.
        """
        if name in own:
            return Code(self.noun, name, own[name])
        found = self.find(name, place)
        if found is None:
            raise ConfigError(
                f"{place}: no {self.noun} is called {name!r}. {self.unknown(name, own or self.own)}"
            )
        return found

    def unknown(self, name: str, own: Collection[str]) -> str:
        """What to say where nobody has `name`."""
        return f"{nearest(name, self.known(own))} One of your own is named by module:attribute."

    def installed(self) -> list[EntryPoint]:
        """The entry points of installed distributions, by name; none of them is loaded."""
        return sorted(importlib.metadata.entry_points(group=self.name), key=lambda e: e.name)

    def distribution_of(self, name: str) -> str:
        """Name and version of what installed `name`; empty if unknown. Nothing is loaded."""
        if ":" in name:
            return distribution_of(name)
        found = [e for e in self.installed() if e.name == name and e.dist is not None]
        return distribution(found[0]) if found else ""

    def trouble(self, entry: EntryPoint) -> str | None:
        """Why `entry` can never be used by its name; None if it can."""
        if entry.name in self.own:
            return f"{entry.name} is sheafnet's own name, which no plug-in can take"
        if sum(other.name == entry.name for other in self.installed()) > 1:
            return f"several distributions have a {self.noun} of the name {entry.name}"
        return None

    def _entry(self, name: str, place: str) -> EntryPoint | None:
        found = [entry for entry in self.installed() if entry.name == name]
        if len(found) > 1:
            raise ConfigError(
                f"{place}: several distributions have a {self.noun} {name!r}: "
                f"{', '.join(f'{distribution(e)} ({e.value})' for e in found)}. Name one of them "
                "by its path, or uninstall the other."
            )
        return found[0] if found else None

    def _load(self, code: "Code[None]", place: str) -> Code[T]:
        if not _PATH.fullmatch(code.path):
            raise ConfigError(
                f"{place}: {code.path!r} is no path of a {self.noun}: write module:attribute, as "
                f"in my_package.my_module:MY_{self.noun.upper().replace(' ', '_')}."
            )
        module, _, attribute = code.path.partition(":")
        value: Any = self._module(code, module, place)
        with code.guard(f"the look-up of {attribute}", place):
            for part in attribute.split("."):
                if not hasattr(value, part):
                    raise ConfigError(
                        f"{place}: {code._whose()}: {module} has no {attribute}. "
                        f"{self._offers(sys.modules[module])}"
                    )
                value = getattr(value, part)
        if not isinstance(value, self.expects):
            raise ConfigError(
                f"{place}: {code._whose()} is {_a(value)}; it has to be an instance of "
                f"{self.expects.__name__} (docs/plugins.md)."
            )
        if wrong := _malformed(value):
            raise ConfigError(f"{place}: {code._whose()}: {wrong} (docs/plugins.md).")
        return Code(self.noun, code.name, value, code.path, code.distribution)

    def _module(self, code: "Code[None]", module: str, place: str) -> Any:
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise code._failed("its import", place, error) from error
            raise ConfigError(f"{place}: {code._whose()}: {_nowhere(module)}") from None
        except (Exception, SystemExit) as error:
            if _of_a_signal(error):
                raise
            raise code._failed("its import", place, error) from error

    def _offers(self, module: object) -> str:
        names = [n for n, value in vars(module).items() if isinstance(value, self.expects)]
        return f"It has {', '.join(names)}." if names else f"It has no {self.expects.__name__}."


def import_module(module: str) -> Any:
    """Import a module of the user's: installed, on ``PYTHONPATH``, or in the working directory.

    Raises:
        Exception: whatever the module raises.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # behind all others, so that nothing there takes their names
    return importlib.import_module(module)


def distribution(entry: EntryPoint) -> str:
    """Name and version of the distribution that `entry` is of."""
    found = entry.dist
    return "an unknown distribution" if found is None else f"{found.name} {found.version}"


def distribution_of(path: str) -> str:
    """Name and version of what installed a module, or ``module:attribute``; empty if unknown."""
    return _distribution_of(_package(path))


def problem_of_import(module: str) -> str | None:
    """Why a module of ``imports`` cannot be imported in this process; None if it can."""
    try:
        import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module raises is the user's to read
        if _of_a_signal(error):
            raise
        return (
            f"imports: {module} cannot be imported: {type(error).__name__}: {error}. It has to be "
            "installed, or on PYTHONPATH, on every machine."
        )
    return None


def _generators(device: "torch.device") -> list[bytes]:
    """The states of torch's global generators from which code on `device` may draw."""
    import torch

    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in states]


_CALLED = ("build", "check", "size", "open", "loss", "estimate")


def _malformed(kind: object) -> str | None:
    """What of a kind has another form than is called and checked; None if nothing has."""
    if not hasattr(kind, "options"):
        return None  # a link, which is checked as it is made
    options = kind.options
    if not (isinstance(options, type) and issubclass(options, Model)):
        return f"its options are {_a(options)}; they have to be a subclass of sheafnet.Model"
    for name in _CALLED:
        if not callable(part := getattr(kind, name, _malformed)):
            return f"its {name} is {_a(part)}; it has to be a function"
    return None


def _nowhere(module: str) -> str:
    return (
        f"there is no module {module}. It has to be installed, on PYTHONPATH or in the working "
        "directory, on every machine."
    )


def _where(error: BaseException, path: str) -> str:
    """File and line where `error` arose: the innermost frame of the plug-in's own package."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frame = (_frames(error, path) or _frames(error))[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"


def _frames(error: BaseException, path: str | None = None) -> list[traceback.FrameSummary]:
    """The frames of `error` in files, outermost first; those of the package of `path`, if given."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")
    ]
    if path is None:
        return frames
    folders = _folders(_package(path), sys.modules)
    return [f for f in frames if any(f.filename.startswith(folder) for folder in folders)]


def _of_a_signal(error: BaseException) -> bool:
    """Whether a handler of signals raised `error`, as Ray's raises SystemExit for SIGTERM."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [getattr(handler, "__code__", None) for handler in handlers]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _package(path: str) -> str:
    """The package of the module of ``module:attribute``."""
    return path.partition(":")[0].partition(".")[0]


def _folders(package: str, modules: Mapping[str, Any]) -> list[str]:
    """What the names of the files of a package begin with."""
    module = modules.get(package)
    inside = [f"{folder}{os.sep}" for folder in getattr(module, "__path__", ())]
    return inside or [str(Path(file)) for file in [getattr(module, "__file__", None)] if file]


@lru_cache
def _distribution_of(package: str) -> str:
    names = importlib.metadata.packages_distributions().get(package, [])
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else ""


def _a(value: object) -> str:
    """What `value` is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
