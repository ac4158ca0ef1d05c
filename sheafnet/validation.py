"""The base of all models, plain values as models, and what is wrong with them in a user's words."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from sheafnet.document import Key, Origin
from sheafnet.errors import ConfigError


class Model(BaseModel):
    """Base of every configuration model: frozen, and no key that nothing reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    younger: ClassVar[tuple[str, ...]] = ()
    """Keys that a dump leaves out at their defaults: they came after cells of studies were named by
    the hash of one."""

    @model_serializer(mode="wrap")
    def _without_younger(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name in self.younger:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if bool not in (annotation, *get_args(annotation)) and any(
            isinstance(part, bool) for part in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(
                "true or false does not belong here (YAML reads a bare yes, no, on and off as "
                "that; put quotes round text)"
            )
        return value


M = TypeVar("M", bound=BaseModel)


def check_model(
    model: type[M],
    values: Mapping[str, Any],
    *,
    source: str | Origin = "configuration",
    prefix: Key = (),
) -> M:
    """Validate `values` as `model`.

    Args:
        model: what to validate as.
        values: the keys and values.
        source: where they come from, for the message.
        prefix: the key under which `values` stands.

    Raises:
        ConfigError: naming the source, the line (where known), the whole key, the value and the
            remedy; an unknown key comes with the nearest valid one.
    """
    origin = Origin(source) if isinstance(source, str) else source
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [
            _problem(model, detail, origin, prefix)
            for detail in _one_per_key(error.errors(include_url=False))
        ]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that lists what is known and names the nearest to `name`."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(known)}."


def _one_per_key(errors: Sequence[Any]) -> list[Any]:
    """Pydantic reports every branch of a union; a user needs one problem per key."""
    branches: dict[Key, list[Any]] = {}
    for error in errors:
        branches.setdefault(_key_path(error), []).append(error)
    return [_joined(group) for group in branches.values()]


def _joined(branches: list[Any]) -> Any:
    """The errors of all branches of a union as one that offers each of them."""
    if len(branches) == 1:
        return branches[0]
    offers = []
    for error in branches:
        offer = error["msg"].removeprefix("Input should be ")
        offers.append(offer if error["type"] == "literal_error" else offer.partition(", ")[0])
    return {**branches[0], "msg": "Input should be " + " or ".join(dict.fromkeys(offers))}


_BRANCHES = {"int", "float", "constrained-int", "constrained-float"}


def _key_path(error: Any) -> Key:
    """The keys of an error's location without pydantic's names of union branches."""
    location: Key = error["loc"]
    own = 1 if error["type"] == "extra_forbidden" else 0  # the user's own key, whatever it is
    within = location[: len(location) - own]
    return (
        tuple(
            part
            for part in within
            if not (isinstance(part, str) and (part in _BRANCHES or "[" in part))
        )
        + location[len(within) :]
    )


def _problem(
    model: type[BaseModel],
    detail: Any,
    origin: Origin,
    prefix: Key,
) -> str:
    path = _key_path(detail)
    whole = (*prefix, *path)
    where = origin.locate(*whole)
    key = ".".join(str(part) for part in whole)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f"{where}: {key}: unknown key. {nearest(str(path[-1]), known)}"
    if detail["type"] == "missing":
        return f"{where}: {key}: is missing and has no default."
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "model_type":
        message = f"needs keys below it: {', '.join(_fields_at(model, path))}"
    message = message.replace("a valid tuple", "a list").replace("Tuple should", "the list should")
    message = message[0].lower() + message[1:]
    if not path and not prefix:
        return f"{where}: {message}."
    given = detail["input"]
    shown = f" = {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {key}{shown}: {message}."


def _fields_at(model: type[BaseModel], path: Key) -> list[str]:
    """Names of the keys that are allowed at `path` below `model`."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        current = _model_in(annotation)
        if current is None:
            return []
    return list(current.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
