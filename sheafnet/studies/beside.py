"""Finished runs side by side: what each cost and how good it was."""

from collections.abc import Callable, Mapping
from functools import partial

from rich.table import Table

from sheafnet.network.ledger import FATES
from sheafnet.runtime.summary import Summary

Row = tuple[str, str, Callable[[Summary], float | None]]
"""Name, format and value."""

_COUNT, _MEASURE, _SHARE = ",.0f", ",.6g", ".3f"


def beside(summaries: Mapping[str, Summary]) -> Table:
    """The table of `compared`."""
    columns, rows = compared(summaries)
    table = Table(title="Side by side", title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def compared(summaries: Mapping[str, Summary]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and rows that begin with the name of a figure.

    One column a run, by its name; of two runs also the second as against the first: counts and
    measures in percent, shares and errors as their difference.
    """
    pair = len(summaries) == 2
    columns = [*summaries, *(["against the first"] if pair else [])]
    rows = []
    for name, form, value in _rows(list(summaries.values())):
        values = [value(summary) for summary in summaries.values()]
        if any(v is not None for v in values):
            change = [_change(form, *values)] if pair else []
            rows.append([name, *("-" if v is None else f"{v:{form}}" for v in values), *change])
    return columns, rows


def _rows(summaries: list[Summary]) -> list[Row]:
    rows: list[Row] = [
        ("bytes in training", _COUNT, lambda s: s.communication.train.bytes_total),
        ("bytes a training round", _COUNT, lambda s: s.communication.train.bytes_per_round),
        ("bytes of inference", _COUNT, lambda s: s.communication.inference.bytes_total),
        (
            "bytes per inferred sample",
            ",.1f",
            lambda s: s.communication.inference.bytes_per_inferred_sample,
        ),
    ]
    rows += [
        (f"{unit} of {what}", _MEASURE, partial(_radio, phase=phase, key=unit))
        for phase, what in (("train", "training"), ("inference", "inference"))
        for unit in ("seconds", "joules")
    ]
    if any(s.communication.train.fates for s in summaries):
        rows += [(f"messages {fate}", _COUNT, partial(_messages, fate=fate)) for fate in FATES]
    rows += [(f"recall@{k}", _SHARE, partial(_alignment, key=f"recall_at_{k}")) for k in (1, 5, 10)]
    rows.append(("zero-shot accuracy", _SHARE, partial(_alignment, key="zero_shot_accuracy")))
    shots = {shots: None for s in summaries for shots in s.alignment.few_shot_accuracy}
    rows += [(f"{k}-shot accuracy", _SHARE, partial(_few_shot, shots=k)) for k in shots]
    rows += [
        ("linear probe accuracy", _SHARE, partial(_alignment, key="probe_accuracy")),
        ("accuracy of all joined", _SHARE, partial(_alignment, key="fused_accuracy")),
        ("NMSE of what was missing", _SHARE, lambda s: s.missing.nmse),
        ("accuracy on what was missing", _SHARE, lambda s: s.missing.accuracy),
    ]
    return rows


def _radio(summary: Summary, phase: str, key: str) -> float | None:
    """Simulated; None where no edge has a link."""
    radio = getattr(summary.communication, phase).radio
    return None if radio is None else getattr(radio, key)


def _messages(summary: Summary, fate: str) -> float | None:
    """Messages of training and inference with this fate; without faults none has any but sent."""
    phases = (summary.communication.train, summary.communication.inference)
    if not phases[0].fates:
        sent = sum(traffic.messages for traffic in phases)
        return sent if fate in ("sent", "delivered") else 0
    return sum(traffic.fates[fate].messages for traffic in phases if fate in traffic.fates)


def _alignment(summary: Summary, key: str) -> float | None:
    value: float | None = getattr(summary.alignment, key)
    return value


def _few_shot(summary: Summary, shots: str) -> float | None:
    return summary.alignment.few_shot_accuracy.get(shots)


def _change(form: str, first: float | None, second: float | None) -> str:
    if first is None or second is None:
        return "-"
    if form == _SHARE:
        return f"{second - first:+.3f}"
    return f"{second / first - 1:+.1%}" if first else "-"
