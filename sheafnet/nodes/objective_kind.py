"""An objective of a plug-in: further loss terms of a node, from what it has anyway.

It sees the node's section, its projections, and those that it received, which are held constant; it
has no endpoint. So only projections cross still (law 3), and a node's step is along the gradient of
its own terms. It is that of a joint loss over the edges where both ends compute the same value of
an edge, as L_sheaf and L_contrast do (law 2). With ``contrastive_weight``, ``sheaf_weight`` and
``reconstruction_weight`` of 0 the terms stand alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sheafnet.config import Config, Model
from sheafnet.errors import ConfigError
from sheafnet.plugins import Code, Group

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Sequence[tuple[Tensor, Tensor]], Any], Tensor]


@dataclass(frozen=True)
class ObjectiveKind:
    """Loss terms that the YAML can name as ``training.objective``.

    Args:
        loss: (section, pairs, options) -> the weighted sum of the terms, a scalar. section is h_i
            (B, d_i); pairs are (p_i, p_j), each (B, d_ij), of the channels that train and whose
            projection came, in their order and at least one. h_i and p_i have their graph, p_j has
            none. It draws nothing from torch's global generator.
        options: its options as a frozen model; by default it has none.
    """

    loss: "Loss"
    options: type[Model] = Model


GROUP = Group("objective", "sheafnet.objectives", ObjectiveKind)


@dataclass(frozen=True)
class Objective:
    """The objective of a run, with its options."""

    code: Code[ObjectiveKind]
    options: Model

    def loss(
        self, section: "Tensor", pairs: "Sequence[tuple[Tensor, Tensor]]", place: str
    ) -> "Tensor":
        """The terms as a scalar; arguments as of `ObjectiveKind`, and node and round.

        Raises:
            PluginError: it fails, draws from torch's global generator, or gives anything but a
                scalar of float32.
            DivergenceError: it gives NaN or infinity.
        """
        with self.code.computing("its loss", section.device, place):
            found = self.code.value.loss(section, pairs, self.options)
        term = self.code.tensor(found, (), section.device, place)
        if not bool(term.isfinite()):
            raise self.code.diverged(place)
        return term


def find_objective(name: str, where: str) -> Code[ObjectiveKind]:
    """The objective called `name`.

    Raises:
        ConfigError: there is none.
        PluginError: its module fails while it is imported.
    """
    found = GROUP.find(name, where)
    if found is None:
        known = GROUP.known(())
        near = GROUP.unknown(name, ()) if known else "No installed plug-in has one; name a path."
        raise ConfigError(f"{where}: no objective is called {name!r}. {near}")
    return found


def open_objective(config: Config) -> Objective | None:
    """The objective that ``training.objective`` names, if any.

    Raises:
        ConfigError: there is none of that name, or an option is wrong.
        PluginError: its module fails while it is imported.
    """
    chosen, key = config.training.objective, ("training", "objective")
    if chosen is None:
        return None
    where = f"{config.origin.locate(*key)}: training.objective"
    code = find_objective(chosen.name, where)
    return Objective(code, code.options(chosen.options, config.origin, key, where))
