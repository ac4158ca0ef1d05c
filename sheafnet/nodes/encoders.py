"""Encoders f_i: sample -> section of the vertex stalk, by name.

``register`` adds one, and so do entry points and paths (`sheafnet.plugins`). An entry says which
options it takes (a frozen model), checks that it suits the shape of the node's samples, and builds
a torch module ``(B, *shape) -> (B, d_i)``. torch is imported only when an encoder is built, so that
whoever just checks a configuration starts fast. By default an encoder ends in a layer norm:
restriction maps then see sections of one scale.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sheafnet.config import Model, Named, Positive
from sheafnet.errors import ConfigError
from sheafnet.plugins import Code, Group

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """What an encoder takes of memory: its parameters, and the values that its linear and
    convolutional layers put out for one sample."""

    parameters: int = 0
    values: int = 0


@dataclass(frozen=True)
class EncoderKind:
    """An encoder that the YAML can name.

    Args:
        name: what the YAML calls it where it is registered; otherwise the entry point's name, or
            its path.
        options: its options as a frozen model.
        build: (shape, d_i, options) -> torch module, a new one each time, whose forward draws
            nothing from torch's global generator.
        check: (shape) -> what is wrong with that shape, or None.
        size: (shape, d_i, options) -> `Size`, for the memory that a run is estimated to need; by
            default nothing is counted.
    """

    name: str
    options: type[Model]
    build: Callable[[Shape, int, Any], "nn.Module"]
    check: Callable[[Shape], str | None]
    size: Callable[[Shape, int, Any], Size] = lambda *_: Size()


ENCODERS: dict[str, EncoderKind] = {}
GROUP = Group("encoder", "sheafnet.encoders", EncoderKind, ("mlp", "conv", "conv1d"))
"""Those of others."""


def register(kind: EncoderKind) -> None:
    """Make `kind` selectable by its name.

    Raises:
        ValueError: the name is taken.
    """
    if kind.name in ENCODERS:
        raise ValueError(f"an encoder is called {kind.name!r} already")
    ENCODERS[kind.name] = kind


def find_encoder(name: str, where: str) -> Code[EncoderKind]:
    """The encoder called `name`, registered or of a plug-in.

    Raises:
        ConfigError: there is none.
        PluginError: its module fails while it is imported.
    """
    kind = ENCODERS.get(name)
    if kind is not None:
        module = getattr(kind.build, "__module__", __name__)
        return Code(GROUP.noun, name, kind, "" if module == __name__ else module)
    return GROUP.named(name, where, ENCODERS)


def check_encoder(chosen: Named, shape: Shape, where: str) -> Model:
    """The checked options of `chosen` for samples of `shape`.

    Raises:
        ConfigError: no such encoder, an unknown or bad option, or samples that it cannot take.
        PluginError: it is somebody else's, and fails.
    """
    code = find_encoder(chosen.name, where)
    source = f"{where}: encoder {chosen.name}"
    options = code.options(chosen.options, source, ("encoder",), where)
    with code.guard("its check of the samples' shape", where):
        problem = code.value.check(shape)
    if problem:
        raise ConfigError(f"{where}: encoder {chosen.name}: {problem}")
    return options


def build_encoder(chosen: Named, shape: Shape, dim: int, node: str) -> "nn.Module":
    """The encoder `chosen`, its weights drawn from torch's current generator.

    Raises:
        ConfigError: as `check_encoder` does.
        PluginError: it is somebody else's, and fails, is no torch module, or shares parameters with
            one that was built before.
    """
    from torch import nn

    where = f"node {node}"
    options, code = check_encoder(chosen, shape, where), find_encoder(chosen.name, where)
    with code.guard("its build", where):
        built = code.value.build(shape, dim, options)
    if not isinstance(built, nn.Module):
        raise code.refuse("built no torch.nn.Module", where)
    if not code.ours:
        _refuse_shared(code, built, node)
    return built


_BUILT_FOR = "_sheafnet_node"
"""An attribute of a parameter, which lives as long as that: the node that it was built for."""


def _refuse_shared(code: Code[EncoderKind], built: "nn.Module", node: str) -> None:
    """Refuse a module that learns by parameters of one that was built before.

    Nodes in one process would learn as one, and others would not (laws 1 and 3).
    """
    learned = {name: p for name, p in built.named_parameters() if p.requires_grad}
    for name, parameter in learned.items():
        other = getattr(parameter, _BUILT_FOR, None)
        if other is not None:
            raise code.refuse(
                f"built a module whose parameter {name} it had built before, for node {other}; "
                "each build has to make a new module",
                f"node {node}",
            )
        setattr(parameter, _BUILT_FOR, node)


@contextmanager
def keeping_buffers(code: Code[EncoderKind], module: "nn.Module", place: str) -> Iterator[None]:
    """Refuse a change of the buffers of `module`, which is not ours.

    What a run keeps at its end are parameters; with other buffers than the built ones they would
    be another encoder.

    Raises:
        PluginError: a buffer was replaced or changed in place.
    """
    held = dict(module.named_buffers())  # as long as it is held, no other tensor has its id
    before = {(name, id(tensor), tensor._version) for name, tensor in held.items()}
    yield
    after = {(name, id(tensor), tensor._version) for name, tensor in module.named_buffers()}
    if before != after:
        name = min(before ^ after)[0]
        raise code.refuse(
            f"changed its buffer {name} in its forward, as BatchNorm does unless "
            "track_running_stats=False; buffers have to stay as built",
            place,
        )


def encoder_size(chosen: Named, shape: Shape, dim: int, node: str) -> Size:
    """The size of the encoder `chosen`, without building it; raises as `check_encoder` does."""
    where = f"node {node}"
    options, code = check_encoder(chosen, shape, where), find_encoder(chosen.name, where)
    with code.guard("its size", where):
        return code.value.size(shape, dim, options)


class MlpOptions(Model):
    """Options of ``mlp``."""

    hidden: tuple[Positive, ...] = (256, 256)
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    layer_norm: bool = True


class ConvOptions(Model):
    """Options of ``conv``: blocks of 3x3 convolution, ReLU and 2x2 max-pooling."""

    channels: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4)] = (16, 32)
    hidden: Positive | None = 128
    layer_norm: bool = True


class Conv1dOptions(Model):
    """Options of ``conv1d``: blocks of convolution along time, ReLU and max-pooling by 2."""

    channels: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6)] = (16, 32)
    kernel: Positive = 5
    hidden: Positive | None = 128
    layer_norm: bool = True


def _build_mlp(shape: Shape, dim: int, options: MlpOptions) -> "nn.Module":
    from torch import nn

    activation = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}[options.activation]
    layers: list[nn.Module] = [nn.Flatten()]
    width = 1
    for size in shape:
        width *= size
    for size in options.hidden:
        layers += [nn.Linear(width, size), activation()]
        width = size
    layers.append(nn.Linear(width, dim))
    if options.layer_norm:
        layers.append(nn.LayerNorm(dim))
    return nn.Sequential(*layers)


def _build_conv(shape: Shape, dim: int, options: ConvOptions) -> "nn.Module":
    from torch import nn

    layers: list[nn.Module] = []
    channels, height, width = shape
    for out in options.channels:
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
        if min(height, width) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = out
    return nn.Sequential(*layers, *_head(channels * height * width, dim, options))


def _build_conv1d(shape: Shape, dim: int, options: Conv1dOptions) -> "nn.Module":
    from torch import nn

    layers: list[nn.Module] = []
    channels, time = shape
    padding = options.kernel // 2
    for out in options.channels:
        layers += [nn.Conv1d(channels, out, options.kernel, padding=padding), nn.ReLU()]
        # An even kernel leaves one step more than it was given.
        time += 2 * padding - options.kernel + 1
        if time >= 2:
            layers.append(nn.MaxPool1d(2))
            time //= 2
        channels = out
    return nn.Sequential(*layers, *_head(channels * time, dim, options))


def _head(features: int, dim: int, options: ConvOptions | Conv1dOptions) -> "list[nn.Module]":
    """What follows the blocks: one hidden layer, the section, and its layer norm."""
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    if options.hidden is not None:
        layers += [nn.Linear(features, options.hidden), nn.ReLU()]
        features = options.hidden
    layers.append(nn.Linear(features, dim))
    if options.layer_norm:
        layers.append(nn.LayerNorm(dim))
    return layers


def _size_mlp(shape: Shape, dim: int, options: MlpOptions) -> Size:
    widths = [math.prod(shape), *options.hidden, dim]
    parameters = sum((a + 1) * b for a, b in pairwise(widths))
    return Size(parameters + (2 * dim if options.layer_norm else 0), sum(widths[1:]))


def _size_conv(shape: Shape, dim: int, options: ConvOptions) -> Size:
    parameters = values = 0
    channels, height, width = shape
    for out in options.channels:
        parameters += (9 * channels + 1) * out
        values += out * height * width
        if min(height, width) >= 2:
            height, width = height // 2, width // 2
        channels = out
    return _with_head(Size(parameters, values), channels * height * width, dim, options)


def _size_conv1d(shape: Shape, dim: int, options: Conv1dOptions) -> Size:
    parameters = values = 0
    channels, time = shape
    for out in options.channels:
        parameters += (options.kernel * channels + 1) * out
        time += 1 - options.kernel % 2
        values += out * time
        if time >= 2:
            time //= 2
        channels = out
    return _with_head(Size(parameters, values), channels * time, dim, options)


def _with_head(blocks: Size, features: int, dim: int, options: ConvOptions | Conv1dOptions) -> Size:
    hidden = () if options.hidden is None else (options.hidden,)
    head = _size_mlp((features,), dim, MlpOptions(hidden=hidden, layer_norm=options.layer_norm))
    return Size(blocks.parameters + head.parameters, blocks.values + head.values)


def _any_shape(_: Shape) -> str | None:
    return None


def _images_only(shape: Shape) -> str | None:
    if len(shape) == 3:
        return None
    other = "conv1d or mlp" if len(shape) == 2 else "mlp"
    return f"it needs images (channels, height, width); these samples are {shape}. Use {other}."


def _series_only(shape: Shape) -> str | None:
    if len(shape) == 2:
        return None
    other = "conv or mlp" if len(shape) == 3 else "mlp"
    return f"it needs series (channels, time); these samples are {shape}. Use {other}."


register(EncoderKind("mlp", MlpOptions, _build_mlp, _any_shape, _size_mlp))
register(EncoderKind("conv", ConvOptions, _build_conv, _images_only, _size_conv))
register(EncoderKind("conv1d", Conv1dOptions, _build_conv1d, _series_only, _size_conv1d))
