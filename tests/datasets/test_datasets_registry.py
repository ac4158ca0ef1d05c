import json
import subprocess
import sys

import numpy as np
import pytest

from sheafnet.datasets import DATASETS
from sheafnet.errors import ConfigError, DatasetError

BUNDLED = [
    "overlap-mnist",
    "multiview-mnist",
    "multiple-features",
    "spoken-digits",
    "wrist-imu",
    "synthetic",
]


def test_every_data_set_is_described():
    assert list(DATASETS) == [*BUNDLED, "arrays", "deepsense"]
    for name, info in DATASETS.items():
        assert info.name == name
        for text in (info.summary, info.modalities, info.sizes, info.licence, info.citation):
            assert text
            assert "\n" not in text
        assert info.options.model_config["extra"] == "forbid"
        assert json.loads(json.dumps(info.as_dict()))["name"] == name
    assert DATASETS["arrays"].as_dict()["options"] == {
        "path": None,
        "split_seed": 0,
        "standardise": True,
    }


@pytest.mark.parametrize("name", BUNDLED)
def test_sources_keep_their_contract(opened, name):
    data = opened(name, graph="line", nodes=3, seed=3)
    assert data.modality(0) == DATASETS[name].modalities.split(", ")[0]
    for node in range(3):
        source = data.source(node)
        for split, events in (("train", [10**9, 5, 5]), ("validation", [0, 99]), ("test", [])):
            events = np.array(events, np.int64)
            view = source.samples(split, events)
            labels = source.labels(split, events, min(node, 1))
            assert view.shape == (len(events), *source.shape)
            assert view.dtype == np.float32
            assert np.isfinite(view).all()
            assert view.flags.c_contiguous
            assert labels.shape == events.shape
            assert labels.dtype == np.int64
            assert ((labels >= 0) & (labels < data.classes)).all()
            with pytest.raises(IndexError):
                source.samples(split, np.array([-1]))
        again = opened(name, graph="line", nodes=3, seed=3).source(node)
        other = opened(name, graph="line", nodes=3, seed=4).source(node)
        events = np.arange(40, 60)
        assert np.array_equal(again.samples("train", events), source.samples("train", events))
        assert not np.array_equal(other.samples("train", events), source.samples("train", events))
    assert data.size("train") is None
    assert data.size("test") == data.distinct("test")


def test_the_nearest_data_set_is_named(opened):
    with pytest.raises(DatasetError, match=r"t: dataset\.name = 'overlap_mnist'.*'overlap-mnist'"):
        opened("overlap_mnist")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("overlap-mnist", {"noize": 0.1}, r"t: dataset\.noize: unknown key\. .*'noise'"),
        ("overlap-mnist", {"shift": 5}, r"t: dataset\.shift = 5"),
        ("overlap-mnist", {"noise": -1.0}, r"t: dataset\.noise = -1\.0"),
        ("multiview-mnist", {"rotation": 181}, r"t: dataset\.rotation = 181"),
        ("multiple-features", {"noise": "much"}, r"t: dataset\.noise = 'much'"),
    ],
)
def test_wrong_options_are_named(opened, name, options, message):
    with pytest.raises(ConfigError, match=message):
        opened(name, **options)


def test_importing_loads_no_data_and_no_heavy_package():
    code = (
        "import sys, numpy\n"
        "def refuse(*a, **k): raise AssertionError('data loaded')\n"
        "numpy.load = refuse\n"
        "import sheafnet.datasets\n"
        "print(sorted({'torch', 'scipy', 'ray', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
