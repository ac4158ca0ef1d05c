"""Deterministic simulation: random networks under random faults keep their invariants.

``SHEAFNET_SIMULATIONS=2000`` runs as many seeds; ``python -m tests.faults.simulation SEED`` one.
"""

import os
from collections import Counter
from collections.abc import Callable

import pytest

from sheafnet.network.ledger import FATES
from tests.faults.simulation import Simulation, check, draw_config

SEEDS = int(os.environ.get("SHEAFNET_SIMULATIONS", "30"))
BLOCK = 30


@pytest.mark.timeout(60 + SEEDS)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_random_networks_under_random_faults(first: int) -> None:
    fates: Counter[str] = Counter()
    for seed in range(first, min(first + BLOCK, SEEDS)):
        fates.update(check(seed))
    for fate in FATES:
        assert fates[fate] > 0, f"no message was {fate}"


def test_the_seeds_draw_every_kind_of_fault_and_method() -> None:
    configs = [draw_config(seed) for seed in range(60)]
    drawn = [config.faults for config in configs]
    for kind in ("edges", "down", "nodes", "stragglers", "partitions"):
        assert any(getattr(faults, kind) for faults in drawn), kind
        assert not all(getattr(faults, kind) for faults in drawn), kind
    assert any(faults.activity.schedule for faults in drawn)
    assert {config.method.name for config in configs} == {
        "sheafalign", "imagebind", "all-pairs", "local", "concat-supervised"
    }  # fmt: skip
    assert {config.training.wire_dtype for config in configs} > {"int8", "int8-row", "float32"}
    assert {config.training.wire_rounding for config in configs} == {"nearest", "stochastic"}
    assert any(config.training.exchange_gradients for config in configs)
    assert {c.inference.diffusion for c in configs if c.inference.diffusion_iterations} == {
        "relay", "harmonic"
    }  # fmt: skip


def test_another_seed_has_another_digest() -> None:
    first, other = (Simulation(draw_config(seed), order=0).run().digest() for seed in (3, 4))
    assert first != other


@pytest.mark.parametrize(
    ("method", "defect", "says"),
    [
        ("reception.Reception.over", lambda *_: False, "nobody can go on"),
        ("links.Links.damage", lambda _self, _frame, _n, buffer: buffer, "was decoded"),
        ("reception.Reception.settle", lambda *_: [], "lines are open"),
        ("reception.Reception.awaits", lambda *_: True, "train|inference"),
    ],
)
def test_a_planted_defect_is_found_and_its_seed_named(
    monkeypatch: pytest.MonkeyPatch, method: str, defect: Callable[..., object], says: str
) -> None:
    monkeypatch.setattr(f"sheafnet.network.{method}", defect)
    replay = rf"python -m tests\.faults\.simulation \d+   fails: .*({says})"
    with pytest.raises(AssertionError, match=replay):
        Counter(fate for seed in range(20) for fate in check(seed))
