"""Sounds that every node hears in phases of its own, and an encoder that is deaf to phases."""

import numpy as np
import torch
from torch import nn

from sheafnet import DatasetInfo, EncoderKind, Model
from sheafnet.datasets.epochs import FiniteEvents, SplitRows, cut
from sheafnet.datasets.info import assign_modalities
from sheafnet.seeds import stream


class SoundOptions(Model):
    tones: int = 8


class Sounds(FiniteEvents):
    def __init__(self, options, topology, seed):
        self.classes, self.seed = options.tones, seed
        self.loudness = stream(0, "loudness").random((3000, options.tones))  # of every tone
        self._rows = SplitRows(cut(np.arange(3000), train=2000, validation=400), seed)
        self._modalities = assign_modalities("sounds", topology, ("sound",))

    def source(self, node):
        return Ear(self, node)


class Ear:
    def __init__(self, sounds, node):
        self.loudness, self.rows = sounds.loudness, sounds._rows.rows
        self.shape = (2 * sounds.classes + 2,)
        phases = stream(sounds.seed, "phases", node).uniform(0, 2 * np.pi, sounds.loudness.shape)
        spectrum = np.pad(sounds.loudness * np.exp(1j * phases), ((0, 0), (1, 1)))
        self.heard = np.fft.irfft(spectrum, norm="forward").astype(np.float32)

    def samples(self, split, events):
        return self.heard[self.rows(split, events)]

    def labels(self, split, events, edge):  # the loudest tone
        return self.loudness[self.rows(split, events)].argmax(axis=1)


class Magnitudes(nn.Module):
    def forward(self, sample):
        return torch.fft.rfft(sample).abs()


def build_fourier(shape, dim, options):
    return nn.Sequential(Magnitudes(), nn.Linear(shape[0] // 2 + 1, dim), nn.LayerNorm(dim))


def check_fourier(shape):
    return None if len(shape) == 1 else f"it needs samples (time,); these are {shape}."


texts = ("sounds of 8 tones, in random phases", "sound", "2000 / 400 / 600", "made up", "none")
SOUNDS = DatasetInfo("sounds", *texts, options=SoundOptions, open=Sounds)
FOURIER = EncoderKind("fourier", Model, build_fourier, check_fourier)
