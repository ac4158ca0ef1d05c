"""The contenders of a comparison: a method each, with settings of its own."""

from dataclasses import dataclass
from typing import get_args

from sheafnet.config import CENTRED, Config, MethodName
from sheafnet.errors import ConfigError
from sheafnet.studies.keys import refuse_run, resolve_key, split_values
from sheafnet.validation import nearest

METHODS: tuple[str, ...] = get_args(MethodName)
HUB_METHODS = ("imagebind",)
"""Methods whose quality depends on which node is the hub."""


@dataclass(frozen=True)
class Contender:
    """A method and what it sets on top of the topology."""

    label: str
    """As typed."""
    method: str
    settings: tuple[str, ...]
    """Overrides with whole keys."""

    @property
    def keys(self) -> set[str]:
        """The keys that it sets itself."""
        return {setting.partition("=")[0] for setting in self.settings}

    def overrides(self, base: Config) -> tuple[str, ...]:
        """What to set on top of `base`, whose hub holds for every method that has one."""
        if base.method.name == self.method:
            return self.settings
        hub = base.method.hub if self.method in CENTRED else None
        kept = () if hub is None else (f"method.hub={hub}",)
        return (f"method={self.method}", *kept, *self.settings)


def read_contenders(given: str) -> tuple[Contender, ...]:
    """Contenders separated by commas: ``method`` or ``method@key=value@key=value``.

    Keys may be shortened as in `sheafnet.studies.keys.resolve_key`.

    Raises:
        ConfigError: a method or a key is not known, a setting is malformed, or one stands twice.
    """
    found = [_read(text) for text in split_values(given, f"--methods {given}")]
    for index, contender in enumerate(found):
        if contender.label in {other.label for other in found[:index]}:
            raise ConfigError(f"--methods {given}: {contender.label} stands twice.")
    return tuple(found)


def _read(text: str) -> Contender:
    method, *settings = text.split("@")
    where = f"--methods {text}"
    if method not in METHODS:
        raise ConfigError(f"{where}: no method is called {method!r}. {nearest(method, METHODS)}")
    return Contender(text, method, tuple(_setting(setting, where) for setting in settings))


def _setting(text: str, where: str) -> str:
    key, separator, value = text.partition("=")
    if not separator or not key or not value:
        raise ConfigError(f"{where}: {text!r} must be KEY=VALUE, as in sheafalign@temperature=0.2")
    whole = resolve_key(key, where)
    refuse_run(whole, where)
    if whole in {"method", "method.name"}:
        raise ConfigError(f"{where}: the method stands in front; name another contender.")
    return f"{whole}={value}"
