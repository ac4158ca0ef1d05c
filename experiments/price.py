"""What the contenders of a comparison bought for their bytes, as one figure: E8."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sheafnet.studies.plot import mark

PANELS = (
    ("train_bytes_per_round", "recall_at_1", "recall@1 on unseen events"),
    ("train_bytes_per_round", "zero_shot_accuracy", "zero-shot accuracy"),
    ("inference_bytes_per_sample", "missing_accuracy_ridge", "accuracy, inferred by ridge"),
    ("inference_bytes_per_sample", "missing_nmse_ridge", "NMSE of ridge, lower is better"),
)
COSTS = {
    "train_bytes_per_round": "bytes a training round",
    "inference_bytes_per_sample": "bytes an inferred sample",
}


def name_of(contender: str) -> str:
    """The method and the values that the contender sets, each once."""
    method, *settings = contender.split("@")
    return " ".join(dict.fromkeys([method, *(text.partition("=")[2] for text in settings)]))


def plot(folder: Path, path: Path) -> None:
    """Draw the comparison in `folder`."""
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))["contenders"]
    figure = draw(found)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw(contenders: dict[str, Any]) -> Figure:
    """A panel for each quality; a mark per contender, its mean and deviation over seeds."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), constrained_layout=True)
    for panel, (cost, quality, label) in zip(axes.flat, PANELS, strict=True):
        for k, (contender, values) in enumerate(contenders.items()):
            at, bought = values["figures"][cost], values["figures"][quality]
            if at["mean"] is None or bought["mean"] is None:
                continue
            panel.errorbar(
                at["mean"],
                bought["mean"],
                xerr=at["standard_deviation"],
                yerr=bought["standard_deviation"],
                **mark(k),
                label=name_of(contender),
            )
        panel.set_xscale("log")
        panel.set_xlabel(COSTS[cost])
        panel.set_ylabel(label)
        panel.grid(alpha=0.3, which="both")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8
    )
    return figure
