"""Named profiles of links, and which one each channel of a run has.

docs/links.md says for every constant which document it was read in, and how it follows from it.
Nothing is said of losses there, so that no named profile has any.
"""

from collections.abc import Mapping

from sheafnet.config import Config, LinkConfig
from sheafnet.plugins import Code, Group
from sheafnet.topology import Topology

PROFILES: dict[str, LinkConfig] = {
    profile.name: profile
    for profile in (
        LinkConfig(
            name="lora",
            bandwidth_bps=4 * 7 / 5 * 125_000 / 2**7,
            latency_s=(4 * (8 + 12) + 1) * 2 ** (7 - 2) / 125_000,
            send_j_per_bit=3.3 * 41.54e-3 / (4 * 7 / 5 * 125_000 / 2**7),
            receive_j_per_bit=3.3 * 12.68e-3 / (4 * 7 / 5 * 125_000 / 2**7),
        ),
        LinkConfig(
            name="ble",
            bandwidth_bps=1e6,
            latency_s=7.5e-3,
            send_j_per_bit=3.0 * 4.8e-3 / 1e6,
            receive_j_per_bit=3.0 * 3.4e-3 / 1e6,
        ),
        LinkConfig(
            name="wifi",
            bandwidth_bps=54e6,
            latency_s=(16 + 2 * 9 + 7.5 * 9 + 20 + 4) * 1e-6,
            send_j_per_bit=3.3 * 220e-3 / 54e6,
            receive_j_per_bit=3.3 * 63e-3 / 54e6,
        ),
        LinkConfig(name="5g", bandwidth_bps=50e6, latency_s=2 * 4e-3),
    )
}

GROUP = Group("link", "sheafnet.links", LinkConfig, PROFILES)
"""Those of others."""


def profiles_of(config: Config, network: Topology) -> tuple[LinkConfig, ...] | None:
    """The profile of each channel of `network`, by index; None where no edge names one.

    Channels that only the hub of a method needs are no edges of the graph and have the default one.

    Raises:
        ConfigError: a name that is not known or stands twice, or a channel without a profile where
            others have one.
    """
    known = dict(PROFILES)
    for at, profile in enumerate(config.links):
        if profile.name in known:
            whose = "shipped already" if profile.name in PROFILES else "described twice"
            raise config.fault(
                f"links.{at}.name = {profile.name!r}: is {whose}; choose another name.", "links", at
            )
        known[profile.name] = profile
    chosen: dict[frozenset[str], str] = {}
    for at, edge in enumerate(config.edges or ()):
        if edge.link is not None:
            _look_up(config, known, edge.link, "edges", at, "link")
            chosen[frozenset(edge.between)] = edge.link
    default = config.defaults.edge.link
    if default is not None:
        _look_up(config, known, default, "defaults", "edge", "link")
    elif not chosen:
        return None
    found = []
    for channel in network.edges:
        ends = frozenset((network.nodes[channel.tail].id, network.nodes[channel.head].id))
        name = chosen.get(ends, default)
        if name is None:
            raise config.fault(
                f"the channel {network.edge_name(channel.index)} has no link where others have "
                "one; name it with the edge, or one for all as defaults.edge.link.",
                "edges",
            )
        found.append(known[name])
    return tuple(found)


def find_link(
    name: str, where: str, known: Mapping[str, LinkConfig] = PROFILES
) -> Code[LinkConfig]:
    """The profile called `name`, one of `known` or of a plug-in.

    Raises:
        ConfigError: there is none.
        PluginError: its module fails while it is imported.
    """
    return GROUP.named(name, where, known)


def _look_up(config: Config, known: dict[str, LinkConfig], name: str, *key: str | int) -> None:
    """Have `name` in `known`, where runs call a profile what the YAML calls it."""
    where = f"{config.origin.locate(*key)}: {'.'.join(map(str, key))}"
    profile = find_link(name, where, known).value
    known[name] = profile if name in known else profile.model_copy(update={"name": name})
