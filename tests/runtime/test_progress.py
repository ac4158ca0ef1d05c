"""What `on_progress=print` prints."""

from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.finding import Finding
from sheafnet.studies.running import StudyProgress


def test_a_stretch_is_a_line_and_what_it_found_stands_above() -> None:
    told = Progress("train", 50, 200, 12.345, 3.2109, 0.5, 1_249_999)
    assert str(told) == "train 50/200  loss 12.3  contrast 3.21  energy 0.5  1.2 MB"
    assert str(Progress("train", 1, 2, 9.0, None, None, 0)) == "train 1/2  loss 9  0.0 MB"
    assert str(Progress("inference", 4, 4, None, None, None, 2_000_000)) == "inference 4/4  2.0 MB"
    finding = Finding(
        signature="collapse",
        scope="network",
        where=[],
        figure="contrastive",
        value=1.0,
        bound=2.0,
        text="try less",
    )
    marked = Progress("train", 1, 2, 9.0, None, None, 0, (finding,), ("an actor was replaced",))
    assert str(marked).splitlines() == [
        "an actor was replaced",
        "collapse: try less",
        "train 1/2  loss 9  0.0 MB",
    ]


def test_a_cell_is_a_line() -> None:
    assert str(StudyProgress("test", 0, 8, 0, None)) == "test: 0/8 cells"
    assert str(StudyProgress("tuning", 3, 8, 1, 125.0)) == (
        "tuning: 3/8 cells, 1 failed, 2 min 5 s left"
    )
