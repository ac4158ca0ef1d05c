"""Named profiles and those of one's own, and which one an edge has."""

from pathlib import Path

import pytest
import yaml

from sheafnet.config import load_config
from sheafnet.errors import ConfigError
from sheafnet.method import Method
from sheafnet.network.links import Links
from sheafnet.network.profiles import PROFILES, profiles_of
from sheafnet.runtime.plan import Plan
from sheafnet.topology import build_topology
from tests.conftest import TINY, MakeConfig

MINE = "links=[{name: mine, bandwidth_bps: 9600, latency_s: 0.1, loss: 0.25}]"


def names(*overrides: str, tiny: MakeConfig) -> list[str] | None:
    config = tiny(*overrides)
    network = Method.open(config, build_topology(config)).network
    found = profiles_of(config, network)
    return None if found is None else [profile.name for profile in found]


def test_named_constants_follow_from_what_the_documents_say() -> None:
    """By hand, from the values that docs/links.md quotes."""
    by_hand = {
        "lora": (5468.75, 0.020736, 2.50664e-5, 7.65148e-6),
        "ble": (1e6, 0.0075, 1.44e-8, 1.02e-8),
        "wifi": (54e6, 0.0001255, 1.34444e-8, 3.85e-9),
        "5g": (50e6, 0.008, None, None),
    }
    assert set(PROFILES) == set(by_hand)
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert profile.loss == 0.0
        found = (
            profile.bandwidth_bps,
            profile.latency_s,
            profile.send_j_per_bit,
            profile.receive_j_per_bit,
        )
        for value, expected in zip(found, by_hand[name], strict=True):
            assert value == (expected and pytest.approx(expected, rel=1e-5)), name


def test_default_and_own_links_of_edges(tiny: MakeConfig) -> None:
    """a-b, a-c, a-d, b-c, c-d; the file lists a-b, b-c, c-d, d-a, a-c."""
    assert names(tiny=tiny) is None
    assert names(MINE, tiny=tiny) is None, "nothing names it"
    assert names("defaults.edge.link=lora", tiny=tiny) == ["lora"] * 5
    given = ("defaults.edge.link=ble", "edges.3={between: [d, a], link: mine}", MINE)
    assert names(*given, tiny=tiny) == ["ble", "ble", "mine", "ble", "ble"]


def test_channels_that_only_a_hub_needs_have_the_default(tiny: MakeConfig) -> None:
    """imagebind with hub b: b-d is no edge."""
    given = ("method={name: imagebind, hub: b}", "defaults.edge.link=wifi", MINE)
    found = names(*given, "edges.0={between: [a, b], link: mine}", tiny=tiny)
    assert found == ["mine", "wifi", "wifi", "wifi", "wifi", "wifi"]


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["defaults.edge.link=wfi"], ["defaults.edge.link", "'wfi'", "Did you mean 'wifi'"]),
        (
            ["edges.1={between: [b, c], link: min}", MINE],
            ["edges.1.link", "Did you mean 'mine'", "lora, ble, wifi, 5g, mine"],
        ),
        (["edges.1={between: [b, c], link: ble}"], ["a~b", "no link", "defaults.edge.link"]),
        (["links=[{name: ble, bandwidth_bps: 1}]"], ["links.0.name = 'ble'", "shipped already"]),
        (
            ["links=[{name: x, bandwidth_bps: 1}, {name: x, bandwidth_bps: 2}]"],
            ["links.1.name = 'x'", "described twice"],
        ),
    ],
)
def test_names_that_cannot_be_meant(
    tiny: MakeConfig, overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        Plan.open(tiny(*overrides))
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("link", "part"),
    [
        ("{name: x}", "links.0.bandwidth_bps"),
        ("{name: x, bandwidth_bps: 0}", "greater than 0"),
        ("{name: x, bandwidth_bps: 1, loss: 1.5}", "links.0.loss"),
        ("{name: x, bandwidth_bps: 1, latency_s: -1}", "links.0.latency_s"),
        ("{name: x, bandwidth_bps: 1, send_j_per_bit: 1e-9}", "receive_j_per_bit, or neither"),
        ("{name: x, bandwidth_bps: 1, latency: 1}", "'latency_s'"),
    ],
)
def test_profiles_that_are_none(tiny: MakeConfig, link: str, part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tiny(f"links=[{link}]")
    assert part in str(refused.value)


def test_an_edge_has_one_loss(tiny: MakeConfig) -> None:
    lossy = (MINE, "defaults.edge.link=ble", "edges.3={between: [d, a], link: mine}")
    for faults in ("{loss: 0.1}", "{edges: [{from_to: [a, d], loss: 0.1}]}"):
        with pytest.raises(ConfigError, match=r"a~d has a loss here, and its link one of 0[.]25"):
            Plan.open(tiny(*lossy, f"faults={faults}"))
    beside = "faults={delay: 0.1, edges: [{between: [a, b], loss: 0.1}]}"
    assert Plan.open(tiny(*lossy, beside)).links is not None


def test_only_a_loss_makes_simulated_links(tiny: MakeConfig) -> None:
    for given, there in (
        ((), False),
        (("defaults.edge.link=ble",), False),
        ((MINE, "defaults.edge.link=ble"), False),
        ((MINE, "defaults.edge.link=mine"), True),
    ):
        config = tiny(*given)
        network = Method.open(config, build_topology(config)).network
        assert (Links.open(config, network) is not None) is there


def test_a_file_keeps_its_links(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(TINY))
    given = load_config(path, [MINE, "defaults.edge.link=mine"])
    again = type(given).model_validate(given.model_dump(mode="json"))
    assert again == given
    assert again.links[0].loss == 0.25
