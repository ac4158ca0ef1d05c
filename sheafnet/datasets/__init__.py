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
from sheafnet.datasets.info import DatasetInfo
from sheafnet.errors import DatasetError, InputError
from sheafnet.topology import Topology
from sheafnet.validation import check_model, nearest

__all__ = ["DATASETS", "DatasetInfo", "open_dataset", "with_absolute_paths"]

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


def open_dataset(config: Config, topology: Topology) -> Dataset:
    """The data set that `config` names, checked and opened for `topology` and the run's seed.

    Raises:
        DatasetError: no data set has that name, or its files are missing or unusable.
        ConfigError: an option is wrong, or a node's modality is not one of the data set's.
    """
    name = config.dataset.name
    if name not in DATASETS:
        known = nearest(name, [*DATASETS])
        raise DatasetError(
            f"{config.origin.locate('dataset')}: dataset.name = {name!r}: no such data set. {known}"
        )
    info = DATASETS[name]
    options = check_model(
        info.options, config.dataset.options, source=config.origin, prefix=("dataset",)
    )
    try:
        return info.open(options, topology, config.run.seed)
    except InputError as error:
        raise type(error)(f"{config.origin.locate('dataset')}: {error}") from None


def with_absolute_paths(config: Config) -> Config:
    """`config` with the data set's folders made absolute: actors may have another working one."""
    given = config.dataset.options
    found = {key: given[key] for key in _PATH_OPTIONS if isinstance(given.get(key), str)}
    absolute = {key: str(Path(value).expanduser().resolve()) for key, value in found.items()}
    dataset = config.dataset.model_copy(update=absolute)
    return config.model_copy(update={"dataset": dataset})
