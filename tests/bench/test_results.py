"""Figures, the results file, and the tables made of it."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from sheafnet.bench.figures import (
    Results,
    Spread,
    check_new,
    compare,
    read_results,
    write_results,
)
from sheafnet.bench.machine import PACKAGES, Machine
from sheafnet.bench.report import markdown, print_results
from sheafnet.bench.suite import PARTS, run_suite
from sheafnet.bench.turns import in_turn
from sheafnet.errors import ActorError, BenchError


def results(*ratios: float) -> Results:
    values = [10 * ratio for ratio in ratios]
    return Results(
        sheafnet="0.1.0",
        measured="2026-01-01T00:00:00+00:00",
        quick=False,
        machine=Machine.here(),
        figures=[
            compare("messages", "16 KiB, channel", "TCP", "us", values, [10.0] * len(values)),
            compare("inference", "ring of 6, 128 samples", "loop", "samples/s", [6e4], [12e4]),
        ],
    )


def shown(results: Results, against: Results | None = None) -> str:
    output = io.StringIO()
    print_results(Console(file=output, width=80), results, against)
    return output.getvalue()


def test_a_figure_is_the_median_of_paired_ratios() -> None:
    """2/1, 9/3, 4/4: the median of the ratios is 2, not that of 4 / 3."""
    figure = compare("rounds", "a", "b", "ms", [2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert figure.ratio == Spread(median=2.0, lowest=1.0, highest=3.0)
    assert figure.value == Spread(median=4.0, lowest=2.0, highest=9.0)
    assert figure.reference_value == Spread(median=3.0, lowest=1.0, highest=4.0)
    assert figure.repeats == 3


def test_values_without_a_reference_each_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare("rounds", "a", "b", "ms", [1.0, 2.0], [1.0])


def test_measurements_take_turns() -> None:
    order: list[str] = []
    measures = {name: lambda name=name: order.append(name) or len(order) for name in ("a", "b")}
    told: list[str] = []
    assert in_turn(measures, 2, told.append) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]
    assert told == ["a, 1 of 2", "b, 1 of 2", "a, 2 of 2", "b, 2 of 2"]


def test_a_failed_measurement_is_named() -> None:
    def fail() -> None:
        raise ActorError("it died")

    with pytest.raises(ActorError, match=r"^ring of 6: it died$"):
        in_turn({"ring of 6": fail}, 1, lambda _: None)


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    kept = results(1.0, 2.0)
    check_new(path)
    write_results(path, kept)
    assert read_results(path) == kept
    with pytest.raises(BenchError, match=r"new\.json: exists already; choose another --output"):
        check_new(path)
    with pytest.raises(BenchError, match="exists already"):
        write_results(path, kept)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"old\.json: cannot be read: No such file"),
        ("[", r"old\.json: is no results file of this version: .*JSON"),
        ("{}", r"is no results file of this version: sheafnet: Field required"),
        ('{"schema_version": 2}', r"is no results file of this version: schema_version: "),
    ],
)
def test_what_is_no_results_file_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=message) as caught:
        read_results(path)
    assert caught.value.exit_code == 2


def test_a_file_in_no_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=f"there is no folder {tmp_path / 'no'}"):
        check_new(tmp_path / "no" / "new.json")


def test_an_unknown_part_names_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"--only frame: no such part\. Did you mean 'frames'"):
        run_suite(["frame"])


def test_ratios_of_two_versions_stand_side_by_side() -> None:
    now, before = results(1.0, 1.5, 2.0), results(3.0)
    text = shown(now, before)
    row = next(line for line in text.splitlines() if "16 KiB" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["16 KiB, channel", "TCP", "µs", "15.0", "10.0", "1.50", "3.00"]
    assert "Another machine" not in text
    missing = before.model_copy(update={"figures": before.figures[:1]})
    rate = next(line for line in markdown(now, missing).splitlines() if "128 samples" in line)
    assert rate.endswith("| 1/s | 60,000 | 120,000 | 0.50 | - |")


def test_another_machine_is_pointed_out() -> None:
    before = results(1.0)
    other = before.machine.model_copy(update={"cores": 640})
    text = shown(results(1.0), before.model_copy(update={"machine": other}))
    assert "Another machine or other packages: compare with care." in text


def test_tables_fit_80_columns() -> None:
    assert "1.00-2.00" in shown(results(1.0, 2.0))
    for text in (shown(results(1.0)), shown(results(1.0), results(2.0))):
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text


def test_quick_results_say_so() -> None:
    quick = results(1.0).model_copy(update={"quick": True})
    assert "QUICK: measured for seconds only" in shown(quick)
    assert "QUICK" in markdown(quick)
    assert "QUICK" not in shown(results(1.0))


def test_the_machine_is_described() -> None:
    here = Machine.here()
    assert here.cores >= 1
    assert here.memory_gb > 0.1
    assert tuple(here.packages) == PACKAGES


@pytest.mark.long
@pytest.mark.ray
def test_every_part_is_measured_beside_its_references() -> None:
    told: list[str] = []
    found = run_suite(quick=True, on_progress=told.append)
    assert found.quick
    assert {line.partition(":")[0] for line in told} == set(PARTS)
    names = {part: [f for f in found.figures if f.part == part] for part in PARTS}
    counts = {part: len(figures) for part, figures in names.items()}
    assert counts == {"messages": 12, "frames": 6, "rounds": 3, "inference": 2, "startup": 2}
    for figure in found.figures:
        assert figure.repeats == 1
        assert figure.value.median > 0
        ratio = figure.value.median / figure.reference_value.median
        assert figure.ratio.median == pytest.approx(ratio)
    calls = [f for f in names["messages"] if f.reference == "Ray actor call"]
    assert len(calls) == 3
    assert "ring of 4, 4 actors" in [f.name for f in names["rounds"]]
