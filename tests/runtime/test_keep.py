"""What a run directory keeps: bounded, decided beforehand, and said."""

import io
from pathlib import Path

import pytest
from rich.console import Console

import sheafnet
from sheafnet.errors import ConfigError
from sheafnet.runtime.keep import Keep, least_bytes
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies.tables import print_run
from tests.conftest import MakeConfig


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_is_kept_where_there_is_room(tiny: MakeConfig) -> None:
    assert Keep.within(Plan.open(tiny()), 10**6, 10**6) == Keep(True, True, True, True)


def test_parameters_outlast_losses_and_these_the_ledger(tiny: MakeConfig) -> None:
    rounds = 1000
    tight = tiny(f"training.rounds={rounds}")
    plan = Plan.open(tight)
    least = least_bytes(plan)

    def within(megabytes: float, parameters: int, state: int = 0) -> tuple[bool, bool, bool]:
        config = tiny(f"training.rounds={rounds}", f"run.directory_mb={megabytes}")
        keep = Keep.within(Plan.open(config), parameters, state)
        assert keep.checkpoints is (state == 0)
        return keep.parameters, keep.losses_by_edge, keep.ledger_by_edge

    assert within((least + 2_000_000) / 1e6, 1_900_000) == (True, True, False)
    assert within((least + 2_000_000) / 1e6, 2_000_000) == (True, False, False)
    assert within((least + 2_000_000) / 1e6, 2_000_001) == (False, True, False)
    assert within((least + 1) / 1e6, 2) == (False, False, False)
    # three checkpoints at once, the newest two and the one being written, come after all else
    assert within((least + 10_000_000) / 1e6, 1, 3_333_334) == (True, True, True)


def test_too_many_rounds_are_refused_with_what_they_take(tiny: MakeConfig) -> None:
    config = tiny("training.rounds=1000000", "run.directory_mb=100")
    with pytest.raises(ConfigError, match=r"directory_mb = 100: 1,000,\d+ rounds of 4 nodes take"):
        Keep.within(Plan.open(config), 0)


def test_a_bounded_run_stays_within_and_its_sums_are_those_of_the_full_one(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    full = sheafnet.simulate(tiny("training.rounds=40"), run_dir=tmp_path / "full")
    bound = (least_bytes(Plan.open(tiny("training.rounds=40"))) + 100) / 1e6
    config = tiny("training.rounds=40", f"run.directory_mb={bound}")
    bounded = sheafnet.simulate(config, run_dir=tmp_path / "bounded")
    assert _bytes(tmp_path / "bounded") <= bound * 1e6 < _bytes(tmp_path / "full")
    assert bounded.summary.communication == full.summary.communication
    assert not (tmp_path / "bounded" / "parameters").exists()

    sums: dict[tuple[str, int], int] = {}
    for line in RunDirectory.open(tmp_path / "full").lines("ledger"):
        key = line["phase"], line["round"]
        sums[key] = sums.get(key, 0) + line["sent"]["payload_bytes"]
    directory = RunDirectory.open(tmp_path / "bounded")
    lines = list(directory.lines("ledger"))
    assert {(n["phase"], n["round"]): n["sent"]["payload_bytes"] for n in lines} == sums
    assert all(line["edge"] == "*" and line["sent"] == line["delivered"] for line in lines)
    train = [line for line in directory.lines("rounds") if line["phase"] == "train"]
    assert len(train) == 40
    assert all(line["contrastive_per_edge"] is None for line in train)
    assert [text.split(" (")[0] for text in directory.about()["left_out"]] == [
        "the parameters",
        "losses by edge",
        "the ledger by edge",
        "checkpoints",
    ]
    assert set(directory.summary() or {}) == set(full.summary.model_dump(mode="json"))
    told = io.StringIO()
    print_run(Console(file=told, width=200), load_run(directory.path))
    assert "Left out: the parameters (" in told.getvalue()
