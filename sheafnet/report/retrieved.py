"""What a trained network finds: pictures retrieved across an edge by projections alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sheafnet.datasets.base import Split
from sheafnet.nodes.events import gallery_size
from sheafnet.nodes.node import Node
from sheafnet.report.charts import Picture
from sheafnet.runtime.foreign import references
from sheafnet.runtime.loaded import LoadedRun

QUERIES, FOUND = 4, 5


@dataclass(frozen=True)
class Retrieved:
    """One directed edge: its queries, their true partners, and the nearest of the gallery."""

    arrow: str
    rows: list[list[Picture]]
    """Per query: its own view, the neighbour's view of the same event, the `FOUND` nearest."""
    hits: list[int | None]
    """Which of the nearest is the same event."""


def retrieved(run: LoadedRun) -> list[Retrieved]:
    """The edge of highest, of middle and of lowest recall between nodes that see pictures.

    Empty of data without pictures, of methods that do not align, of unfinished runs, and of runs
    that name code of somebody's: looking at a run executes nothing that it names.

    Raises:
        InputError: the parameters or the data are not there.
    """
    summary = run.summary
    if summary is None or run.config.imports or references(run.config):
        return []
    recalls = {
        arrow: edge.recall_at_1
        for arrow, edge in summary.alignment.per_edge.items()
        if edge.recall_at_1 is not None
    }
    if not recalls:
        return []
    shapes = {node.id: run.plan.dataset.source(node.index).shape for node in run.topology.nodes}
    seen = [
        arrow
        for arrow in sorted(recalls, key=recalls.__getitem__)
        if all(_is_picture(shapes.get(name, ())) for name in arrow.split("->"))
    ]
    if not seen:
        return []
    chosen = dict.fromkeys([seen[-1], seen[len(seen) // 2], seen[0]])
    return [_across(run, arrow) for arrow in chosen]


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


@torch.no_grad()
def _across(run: LoadedRun, arrow: str) -> Retrieved:
    split = run.config.evaluation.split
    asks, searched = (run.node(name) for name in arrow.split("->"))
    (edge,) = (e for e in asks.edges if e.other(asks.spec.index) == searched.spec.index)
    events = np.arange(gallery_size(run.config, asks.dataset), dtype=np.int64)
    queries = events[:: max(1, len(events) // QUERIES)][:QUERIES]
    own = _projected(asks, edge.index, split, queries)
    gallery = _projected(searched, edge.index, split, events)
    nearest = (own @ gallery.T).topk(min(FOUND, len(events)), dim=1).indices.tolist()
    rows, hits = [], []
    for event, found in zip(queries.tolist(), nearest, strict=True):
        theirs = [_picture(searched, split, k) for k in [event, *found]]
        rows.append([_picture(asks, split, event), *theirs])
        hits.append(found.index(event) if event in found else None)
    return Retrieved(arrow, rows, hits)


def _projected(node: Node, edge: int, split: Split, events: npt.NDArray[np.int64]) -> torch.Tensor:
    position = next(k for k, e in enumerate(node.edges) if e.index == edge)
    section = node.labelled(split, events).section
    return torch.nn.functional.normalize(node.project(section)[position], dim=1)


def _picture(node: Node, split: Split, event: int) -> Picture:
    sample = node.samples(split, np.array([event])).cpu().numpy()[0]
    if sample.shape[0] == 1:
        return np.asarray(sample[0])
    low, high = sample.min(), sample.max()
    return np.asarray(np.moveaxis((sample - low) / ((high - low) or 1.0), 0, 2))
