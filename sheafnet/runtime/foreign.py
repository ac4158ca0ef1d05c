"""The code of others that a run needs: what it names, and whether it is there.

What names such code is no reason to load it: whoever looks at a run loads none of it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sheafnet.config import Config, Named
from sheafnet.datasets import DATASETS, find_dataset
from sheafnet.datasets import GROUP as DATASET_GROUP
from sheafnet.errors import SheafnetError
from sheafnet.network.profiles import GROUP as LINK_GROUP
from sheafnet.network.profiles import PROFILES, find_link
from sheafnet.nodes.encoders import GROUP as ENCODER_GROUP
from sheafnet.nodes.encoders import find_encoder
from sheafnet.nodes.objective_kind import GROUP as OBJECTIVE_GROUP
from sheafnet.nodes.objective_kind import find_objective
from sheafnet.plugins import Code, Group, distribution_of, problem_of_import
from sheafnet.sheaf.estimator_kind import GROUP as ESTIMATOR_GROUP
from sheafnet.sheaf.estimator_kind import find_estimator

GROUPS: tuple[Group[Any], ...] = (
    ENCODER_GROUP,
    DATASET_GROUP,
    OBJECTIVE_GROUP,
    ESTIMATOR_GROUP,
    LINK_GROUP,
)
"""Everything that plug-ins may add."""
_FINDERS: dict[str, Callable[[str, str], Code[Any]]] = {
    "encoder": find_encoder,
    "data set": find_dataset,
    "objective": find_objective,
    "estimator": find_estimator,
    "link": find_link,
}


class Reference(NamedTuple):
    """A name that is none of ours."""

    noun: str
    key: str
    """Where in the configuration it stands."""
    name: str


def references(config: Config) -> tuple[Reference, ...]:
    """What `config` names of others, each once; nothing is looked up."""
    found = {(r.noun, r.name): r for r in reversed(list(_named(config)))}
    return tuple(reversed(found.values()))


def distributions(config: Config) -> dict[str, str]:
    """Versions of what installed the code of others that `config` names, where that is known.

    By name of the distribution. Nothing is loaded.
    """
    groups = {group.noun: group for group in GROUPS}
    found = {groups[noun].distribution_of(name) for noun, _, name in references(config)}
    found |= {distribution_of(module) for module in config.imports}
    pairs = (each.rpartition(" ") for each in sorted(found - {""}))
    return {name: version for name, _, version in pairs}


def problem_of(imports: Sequence[str], named: Sequence[tuple[str, str, str]]) -> str | None:
    """Why some code of others cannot be loaded in this process; None if all can.

    Args:
        imports: modules.
        named: what `references` returned.
    """
    for module in imports:
        problem = problem_of_import(module)
        if problem is not None:
            return problem
    for noun, key, name in named:
        try:
            _FINDERS[noun](name, key)
        except SheafnetError as error:
            return str(error)
    return None


def _named(config: Config) -> Iterator[Reference]:
    if config.dataset.name not in DATASETS:
        yield Reference("data set", "dataset", config.dataset.name)
    listed = [(f"nodes.{at}", node.encoder) for at, node in enumerate(config.nodes or ())]
    encoders: list[tuple[str, Named | None]] = [
        ("defaults.node", config.defaults.node.encoder),
        *listed,
    ]
    for key, encoder in encoders:
        if encoder is not None and encoder.name not in ENCODER_GROUP.own:
            yield Reference("encoder", f"{key}.encoder", encoder.name)
    if config.training.objective is not None:
        yield Reference("objective", "training.objective", config.training.objective.name)
    for at, estimator in enumerate(config.inference.estimators):
        yield Reference("estimator", f"inference.estimators.{at}", estimator.name)
    own = {*PROFILES, *(profile.name for profile in config.links)}
    links = [("defaults.edge", config.defaults.edge.link)]
    links += [(f"edges.{at}", edge.link) for at, edge in enumerate(config.edges or ())]
    for key, link in links:
        if link is not None and link not in own:
            yield Reference("link", f"{key}.link", link)
