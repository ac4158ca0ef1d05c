"""The data sets: one file each, and this registry of them by name."""

from pathlib import Path

from sheafnet.config import Config
from sheafnet.datasets import (
    arrays,
    deepsense,
    multiple_features,
    multiview_mnist,
    overlap_mnist,
    spoken_digits,
    synthetic,
    wrist_imu,
)
from sheafnet.datasets.base import Dataset
from sheafnet.datasets.guarded import GuardedDataset
from sheafnet.datasets.info import DatasetInfo
from sheafnet.errors import DatasetError, InputError
from sheafnet.plugins import Code, Group
from sheafnet.topology import Topology

__all__ = [
    "DATASETS",
    "GROUP",
    "DatasetInfo",
    "find_dataset",
    "open_dataset",
    "with_absolute_paths",
]

_PATH_OPTIONS = ("path", "data_dir")

DATASETS: dict[str, DatasetInfo] = {
    module.INFO.name: module.INFO
    for module in (
        overlap_mnist,
        multiview_mnist,
        multiple_features,
        spoken_digits,
        wrist_imu,
        synthetic,
        arrays,
        deepsense,
    )
}


GROUP = Group("data set", "sheafnet.datasets", DatasetInfo, DATASETS)
"""Those of others."""


def find_dataset(name: str, where: str) -> Code[DatasetInfo]:
    """The data set called `name`, ours or of a plug-in.

    Raises:
        DatasetError: there is none.
        ConfigError: a path leads nowhere.
        PluginError: its module fails while it is imported.
    """
    if name in DATASETS:
        return Code(GROUP.noun, name, DATASETS[name])
    found = GROUP.find(name, where)
    if found is None:
        raise DatasetError(f"{where}: no such data set. {GROUP.unknown(name, DATASETS)}")
    return found


def open_dataset(config: Config, topology: Topology) -> Dataset:
    """The data set that `config` names, checked and opened for `topology` and the run's seed.

    Raises:
        DatasetError: no data set has that name, or its files are missing or unusable.
        ConfigError: an option is wrong, or a node's modality is not one of the data set's.
        PluginError: it is somebody else's, and fails.
    """
    name, where = config.dataset.name, config.origin.locate("dataset")
    code = find_dataset(name, f"{where}: dataset.name = {name!r}")
    options = code.options(config.dataset.options, config.origin, ("dataset",), where)
    try:
        with code.guard("its open", where):
            opened = code.value.open(options, topology, config.run.seed)
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
    if code.ours:
        return opened
    return GuardedDataset(code, opened, [node.id for node in topology.nodes], where)


def with_absolute_paths(config: Config) -> Config:
    """`config` with the data set's folders made absolute: actors may have another working one."""
    given = config.dataset.options
    found = {key: given[key] for key in _PATH_OPTIONS if isinstance(given.get(key), str)}
    absolute = {key: str(Path(value).expanduser().resolve()) for key, value in found.items()}
    dataset = config.dataset.model_copy(update=absolute)
    return config.model_copy(update={"dataset": dataset})
