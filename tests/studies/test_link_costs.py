"""Comparisons and sweeps that weigh quality against simulated seconds and joules.

On the tiny network a training projection has 16 rows of d_ij float32 and 22 bytes of framing, 21
below 256 bytes of payload; six of them are the critical path of a round.
"""

import csv
import json
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import ConfigError
from sheafnet.studies.comparison_tables import grids, write_comparison
from sheafnet.studies.plot import write_plot
from sheafnet.studies.sweep_output import write_table

BLE = ["defaults.edge.link=ble"]
WIDE, NARROW = 8 * (16 * 4 * 4 + 22), 8 * (16 * 2 * 4 + 21)


def test_a_comparison_in_seconds(network: Path, tmp_path: Path) -> None:
    comparison = sheafnet.compare(
        network,
        methods="sheafalign,sheafalign@comparison_dim=0.25",
        seeds=1,
        overrides=BLE,
        targets=["recall_at_1=0.0"],
        cost="seconds",
        study=tmp_path / "study",
    )
    for standing, bits in zip(comparison.standings, (WIDE, NARROW), strict=True):
        each = 6 * bits / 1e6 + 0.0075
        assert standing.figures["train_seconds"].values == pytest.approx((6 * each,))
        (reached,) = standing.reached
        assert reached.cost.values == pytest.approx((each,)), "at the first evaluation"
        assert reached.show() == f"≤ {each:.3g} s"
        joules = 10 * bits * 24.6e-9
        assert standing.figures["train_joules"].values == pytest.approx((6 * joules,))
    titles = [grid.title for grid in grids(comparison)]
    assert "Seconds in training until an evaluation reached" in titles
    write_comparison(comparison)
    told = json.loads((tmp_path / "study" / "compare.json").read_text())
    found = told["contenders"]["sheafalign"]
    assert "bytes_to" not in found
    assert found["seconds_to"]["recall_at_1=0"]["mean"] == pytest.approx(6 * WIDE / 1e6 + 0.0075)
    again = sheafnet.compare(
        network,
        methods="sheafalign",
        seeds=1,
        overrides=BLE,
        targets=["recall_at_1=0.0"],
        cost="joules",
        study=tmp_path / "study",
    )
    (reached,) = again.standings[0].reached
    assert reached.cost.values == pytest.approx((10 * WIDE * 24.6e-9,))


def test_a_sweep_over_links(network: Path, tmp_path: Path) -> None:
    """The same networks at other costs."""
    sweep = sheafnet.sweep(
        network,
        ["link=ble,5g", "comparison_dim=0.25,0.5"],
        seeds=1,
        cost="seconds",
        study=tmp_path / "study",
    )
    assert sweep.cost.name == "train_seconds"
    rows = sweep.rows()
    expected = [
        6 * (6 * bits / rate + latency)
        for rate, latency in ((1e6, 0.0075), (50e6, 0.008))
        for bits in (NARROW, WIDE)
    ]
    assert [row["train_seconds"] for row in rows] == pytest.approx(expected)
    assert [row["recall_at_1"] for row in rows[:2]] == [row["recall_at_1"] for row in rows[2:]]
    assert [row["train_joules"] is None for row in rows] == [False, False, True, True]
    write_plot(sweep, tmp_path / "p.svg")
    assert "simulated seconds of training (s)" in (tmp_path / "p.svg").read_text()
    write_table(sweep, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["defaults.edge.link"] for line in lines] == ["ble", "ble", "5g", "5g"]
    assert [float(line["train_seconds"]) for line in lines] == pytest.approx(expected)
    assert lines[2]["train_joules"] == ""


@pytest.mark.parametrize(
    ("overrides", "cost", "part"),
    [
        ([], "seconds", "sheafalign: no edge has a link"),
        (["defaults.edge.link=5g"], "joules", "the profile 5g tells no energy"),
        (BLE, "second", "Did you mean 'seconds'"),
    ],
)
def test_costs_that_nobody_can_tell(
    network: Path, tmp_path: Path, overrides: list[str], cost: str, part: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        sheafnet.compare(network, seeds=1, overrides=overrides, cost=cost, study=tmp_path / "s")
    assert part in str(refused.value)
    assert not (tmp_path / "s").exists()
