"""An estimator of a plug-in: measured beside ours on the same messages, under its own name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sheafnet.config import OUR_ESTIMATORS, Config, Model
from sheafnet.plugins import Code, Group

if TYPE_CHECKING:
    from torch import Tensor

    from sheafnet.sheaf.estimators import Answers, Moments

    Estimate = Callable[[Answers, int, Moments, Any], Tensor]


@dataclass(frozen=True)
class EstimatorKind:
    """An estimator that the YAML can name under ``inference.estimators``.

    Args:
        estimate: (answers, rows, moments, options) -> the missing sections, (rows, d_i) float32
            without NaN. answers are what neighbours told, `sheaf.estimators.Answers`; moments are
            those of the node's training, `sheaf.estimators.Moments`. It changes neither, and draws
            nothing from torch's global generator. Rows that nobody answered need an estimate too.
        options: its options as a frozen model; by default it has none.
    """

    estimate: "Estimate"
    options: type[Model] = Model


GROUP = Group("estimator", "sheafnet.estimators", EstimatorKind, OUR_ESTIMATORS)


@dataclass(frozen=True)
class OpenedEstimator:
    """An estimator of a run, with its options."""

    code: Code[EstimatorKind]
    options: Model

    def estimate(self, answers: "Answers", rows: int, moments: "Moments", place: str) -> "Tensor":
        """The missing sections, (rows, d_i); arguments as of `EstimatorKind`, and node and round.

        Raises:
            PluginError: it fails, draws from torch's global generator, or gives anything but
                finite float32 of that shape.
        """
        mean = moments.mean_section
        with self.code.computing("its estimate", mean.device, place):
            found = self.code.value.estimate(answers, rows, moments, self.options)
        guess = self.code.tensor(found, (rows, len(mean)), mean.device, place).detach()
        if not bool(guess.isfinite().all()):
            raise self.code.refuse("gave NaN or infinity", place)
        return guess


def find_estimator(name: str, where: str) -> Code[EstimatorKind]:
    """The estimator of a plug-in called `name`.

    Raises:
        ConfigError: there is none.
        PluginError: its module fails while it is imported.
    """
    return GROUP.named(name, where)


def open_estimators(config: Config) -> dict[str, OpenedEstimator]:
    """The estimators that ``inference.estimators`` names, by name.

    Raises:
        ConfigError: there is none of that name, or an option is wrong.
        PluginError: its module fails while it is imported.
    """
    opened = {}
    for at, chosen in enumerate(config.inference.estimators):
        key = ("inference", "estimators", at)
        where = f"{config.origin.locate(*key)}: inference.estimators.{at}"
        code = find_estimator(chosen.name, where)
        options = code.options(chosen.options, config.origin, key, where)
        opened[chosen.name] = OpenedEstimator(code, options)
    return opened
