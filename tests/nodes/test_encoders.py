from typing import Any

import pytest
import torch
from torch import nn

from sheafnet.config import Model, Named
from sheafnet.errors import ConfigError
from sheafnet.nodes import encoders
from sheafnet.nodes.encoders import ENCODERS, EncoderKind, build_encoder, check_encoder, register

torch.set_num_threads(1)


def built(name: str, shape: tuple[int, ...], dim: int = 6, **options: Any) -> nn.Module:
    return build_encoder(Named(name=name, **options), shape, dim, "cam")


def refusal(name: str, shape: tuple[int, ...], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_encoder(Named(name=name, **options), shape, "node cam")
    return str(caught.value)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (1, 20, 40), (3, 1, 1)])
@pytest.mark.parametrize("options", [{}, {"hidden": []}, {"activation": "gelu", "hidden": [5]}])
def test_an_mlp_takes_any_shape(shape, options):
    assert built("mlp", shape, **options)(randn(4, *shape)).shape == (4, 6)


@pytest.mark.parametrize(
    "shape", [(1, 20, 40), (3, 28, 28), (2, 5, 7), (1, 1, 9), (1, 9, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("options", [{}, {"hidden": None}, {"channels": [2, 3, 4, 5]}])
def test_a_conv_takes_any_image(shape, options):
    assert built("conv", shape, **options)(randn(4, *shape)).shape == (4, 6)


@pytest.mark.parametrize("shape", [(13, 32), (1, 64), (3, 7), (1, 1), (2, 3)])
@pytest.mark.parametrize(
    "options",
    [{}, {"hidden": None}, {"channels": [2, 3, 4, 5, 6, 7]}, {"kernel": 1}, {"kernel": 4}],
)
def test_a_conv1d_takes_any_series(shape, options):
    assert built("conv1d", shape, **options)(randn(4, *shape)).shape == (4, 6)


def test_sizes_by_hand():
    # 12 -> 5 -> 6 with offsets.
    assert size(built("mlp", (3, 4), hidden=[5], layer_norm=False)) == 12 * 5 + 5 + 5 * 6 + 6
    assert size(built("mlp", (12,), hidden=[], layer_norm=False)) == 12 * 6 + 6
    assert size(built("mlp", (12,), hidden=[])) == 12 * 6 + 6 + 2 * 6
    # 1 x 8 x 6 -> 2 x 4 x 3 -> 3 x 2 x 1 -> 6.
    conv = built("conv", (1, 8, 6), channels=[2, 3], hidden=None, layer_norm=False)
    assert size(conv) == (9 * 2 + 2) + (2 * 9 * 3 + 3) + (6 * 6 + 6)
    # 3 x 9 -> 2 x 4 -> 4 x 2 -> 6, five weights a pair of channels.
    conv1d = built("conv1d", (3, 9), channels=[2, 4], hidden=None, layer_norm=False)
    assert size(conv1d) == (3 * 5 * 2 + 2) + (2 * 5 * 4 + 4) + (8 * 6 + 6)
    # 1 x 5 -> 2 x 6 with an even kernel -> 2 x 3 -> 7 -> 6.
    conv1d = built("conv1d", (1, 5), channels=[2], kernel=2, hidden=7, layer_norm=False)
    assert size(conv1d) == (2 * 2 + 2) + (6 * 7 + 7) + (7 * 6 + 6)


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (9,)), ("conv", (1, 6, 6)), ("conv1d", (2, 9))]
)
def test_the_layer_norm_gives_sections_of_one_scale(name, shape):
    samples = 100 * randn(50, *shape) + 30
    normed = built(name, shape, dim=32)(samples).detach()
    assert torch.allclose(normed.mean(dim=1), torch.zeros(50), atol=1e-4)
    assert torch.allclose(normed.square().mean(dim=1), torch.ones(50), atol=1e-2)
    free = built(name, shape, dim=32, layer_norm=False)(samples).detach()
    assert float(free.square().mean(dim=1).min()) > 2.0


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", [0.0, 2.0]), ("tanh", [-0.7616, 0.9640]), ("gelu", [-0.1587, 1.9545])],
)
def test_the_activation_is_the_one_that_is_named(activation, expected):
    mlp = built("mlp", (1,), dim=1, hidden=[1], activation=activation, layer_norm=False)
    with torch.no_grad():
        for p in mlp.parameters():
            p.copy_(torch.ones_like(p) if p.ndim == 2 else torch.zeros_like(p))
    assert mlp(torch.tensor([[-1.0], [2.0]])).squeeze(1).tolist() == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize("hidden", [None, 1])
def test_a_conv_rectifies_and_keeps_the_largest_of_four(hidden):
    conv = built("conv", (1, 2, 2), dim=1, channels=[1], hidden=hidden, layer_norm=False)
    with torch.no_grad():
        for p in conv.parameters():
            p.zero_()
            if p.ndim == 4:
                p[0, 0, 1, 1] = 1.0
            elif p.ndim == 2:
                p.fill_(-1.0 if hidden and p is not list(conv.parameters())[-2] else 1.0)
    images = torch.tensor([[[[1.0, -5.0], [3.0, 2.0]]], [[[-1.0, -5.0], [-3.0, -2.0]]]])
    # Largest 3 and, rectified, 0; where a hidden unit turns the sign, its rectifier leaves 0.
    assert conv(images).squeeze(1).tolist() == ([0.0, 0.0] if hidden else [3.0, 0.0])


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (9,)), ("conv", (1, 6, 6)), ("conv1d", (2, 9))]
)
def test_weights_come_from_torchs_generator(name, shape):
    samples = randn(3, *shape)
    torch.manual_seed(1)
    first = built(name, shape)(samples)
    torch.manual_seed(1)
    assert torch.equal(first, built(name, shape)(samples))
    assert not torch.equal(first, built(name, shape)(samples))


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (9,)), ("conv", (1, 6, 6)), ("conv1d", (2, 9))]
)
def test_events_are_encoded_each_on_its_own(name, shape):
    encoder = built(name, shape)
    samples = randn(8, *shape)
    alone = torch.cat([encoder(sample[None]) for sample in samples])
    assert torch.allclose(encoder(samples), alone, atol=1e-5)


def test_a_conv1d_looks_along_time_and_keeps_the_largest_of_two():
    conv1d = built("conv1d", (1, 4), dim=2, channels=[1], kernel=3, hidden=None, layer_norm=False)
    with torch.no_grad():
        for p in conv1d.parameters():
            p.zero_()
            if p.ndim == 3:
                p[0, 0] = torch.tensor([1.0, 0.0, -1.0])
            elif p.ndim == 2:
                p.copy_(torch.eye(2))
    # Before minus after, zeros around: (-4, 1 - 2, 4 - 7, 2), and (4, -1 + 2, -4 + 7, -2).
    series = torch.tensor([[[1.0, 4.0, 2.0, 7.0]], [[-1.0, -4.0, -2.0, -7.0]]])
    assert conv1d(series).tolist() == [[0.0, 2.0], [4.0, 3.0]]


@pytest.mark.parametrize(
    ("shape", "other"), [((64,), "mlp"), ((3, 13), "conv1d or mlp"), ((1, 2, 3, 4), "mlp")]
)
def test_a_conv_refuses_what_is_no_image(shape, other):
    assert refusal("conv", shape) == (
        "node cam: encoder conv: it needs images (channels, height, width); "
        f"these samples are {shape}. Use {other}."
    )


@pytest.mark.parametrize(
    ("shape", "other"), [((64,), "mlp"), ((1, 8, 8), "conv or mlp"), ((1, 2, 3, 4), "mlp")]
)
def test_a_conv1d_refuses_what_is_no_series(shape, other):
    assert refusal("conv1d", shape) == (
        "node cam: encoder conv1d: it needs series (channels, time); "
        f"these samples are {shape}. Use {other}."
    )


def test_an_unknown_encoder_is_told_the_nearest():
    assert refusal("mpl", (3,)).startswith(
        "node cam: no encoder is called 'mpl'. Did you mean 'mlp'? Known: mlp, conv, conv1d"
    )
    with pytest.raises(ConfigError, match="no encoder is called 'resnet50'"):
        built("resnet50", (3,))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"hiden": [8]}, "encoder.hiden: unknown key. Did you mean 'hidden'?"),
        ("mlp", {"channels": [8]}, "encoder.channels: unknown key. "),
        ("mlp", {"hidden": [8, 0]}, "encoder.hidden.1 = 0: input should be greater than or equal"),
        ("mlp", {"hidden": 8}, "encoder.hidden = 8: "),
        ("mlp", {"activation": "swish"}, "encoder.activation = 'swish': input should be 'relu', "),
        ("conv", {"channels": []}, "encoder.channels: "),
        ("conv", {"channels": [1] * 5}, "encoder.channels: "),
        ("conv", {"hidden": 0}, "encoder.hidden = 0: "),
        ("conv", {"layer_norm": "maybe"}, "encoder.layer_norm = 'maybe': "),
        ("conv", {"kernel": 5}, "encoder.kernel: unknown key. "),
    ],
)
def test_a_bad_option_is_named_by_its_key(name, options, message):
    assert refusal(name, (1, 8, 8), **options).startswith(f"node cam: encoder {name}: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 0}, "encoder.kernel = 0: "),
        ({"channels": []}, "encoder.channels: "),
        ({"channels": [1] * 7}, "encoder.channels: "),
        ({"kernels": 3}, "encoder.kernels: unknown key. Did you mean 'kernel'?"),
    ],
)
def test_a_bad_option_of_conv1d_is_named_by_its_key(options, message):
    expected = f"node cam: encoder conv1d: {message}"
    assert refusal("conv1d", (1, 8), **options).startswith(expected)


def test_a_registered_encoder_can_be_built(monkeypatch):
    class Options(Model):
        gain: float = 1.0

    def build(shape: tuple[int, ...], dim: int, options: Any) -> nn.Module:
        layer = nn.Linear(shape[0], dim, bias=False)
        nn.init.constant_(layer.weight, options.gain)
        return layer

    monkeypatch.setattr(encoders, "ENCODERS", dict(ENCODERS))
    kind = EncoderKind("flat", Options, build, lambda s: "too long" if s[0] > 3 else None)
    register(kind)
    assert built("flat", (2,), 4, gain=3.0)(torch.ones(1, 2)).tolist() == [[6.0] * 4]
    assert refusal("flat", (4,)) == "node cam: encoder flat: too long"
    with pytest.raises(ValueError, match="'flat' already"):
        register(kind)


@pytest.mark.parametrize("name", ["mlp", "conv", "conv1d"])
def test_a_name_cannot_be_registered_twice(name):
    before = ENCODERS[name]
    with pytest.raises(ValueError, match=f"an encoder is called '{name}' already"):
        register(EncoderKind(name, Model, lambda *_: nn.Identity(), lambda _: None))
    assert ENCODERS[name] is before
