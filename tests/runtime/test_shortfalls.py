"""Findings of a finished run, on both sides of every bound, from figures made by hand."""

import math

import pytest

from sheafnet.config import InferenceConfig
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.shortfalls import overfitting, reconstruction, zero_shot
from sheafnet.runtime.summary import (
    Alignment,
    Chance,
    DirectedAlignment,
    Estimate,
    Missing,
    NodeMissing,
)

RIDGE = InferenceConfig()
LEARNED = InferenceConfig(dual_map="learned")


def edge(recall: float | None, accuracy: float | None) -> DirectedAlignment:
    return DirectedAlignment(
        recall_at_1=recall,
        recall_at_5=None,
        recall_at_10=None,
        zero_shot_accuracy=accuracy,
        few_shot_accuracy={},
    )


def alignment(
    edges: dict[str, tuple[float | None, float | None]],
    *,
    accuracy: float | None,
    recall: float | None = None,
    gallery: int = 1000,
    classes: int = 10,
) -> Alignment:
    return Alignment(
        **edge(recall, accuracy).model_dump(exclude={"canonical_correlations"}),
        probe_accuracy=None,
        gallery=gallery,
        chance=Chance(recall_at_1=1 / gallery, recall_at_5=0, recall_at_10=0, accuracy=1 / classes),
        per_edge={name: edge(*figures) for name, figures in edges.items()},
        per_node={},
    )


def missing(
    nodes: dict[str, dict[str, float | None]],
    *,
    used: str = "ridge",
    rows: int = 100,
    unanswered: int = 0,
) -> Missing:
    def part(nmse: dict[str, float | None]) -> dict[str, object]:
        estimators = {name: Estimate(nmse=value, accuracy=None) for name, value in nmse.items()}
        return {
            "missing": rows,
            "unanswered": unanswered,
            "accuracy_all_present": None,
            "estimators": estimators,
        }

    return Missing.model_validate(
        part({})
        | {
            "estimator": used,
            "nmse": None,
            "accuracy": None,
            "per_node": {name: NodeMissing.model_validate(part(n)) for name, n in nodes.items()},
        }
    )


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_zero_shot_of_ten_classes_is_at_chance_up_to_a_twentieth_of_the_way() -> None:
    # 0.1 + 0.05 x 0.9 = 0.145, above 0.1 + 3 sqrt(0.1 x 0.9 / 1000) = 0.128
    found = only(zero_shot(alignment({"a->b": (0.0, 0.2)}, accuracy=0.144, recall=0.001)))
    assert (found.signature, found.scope, found.where) == ("zero-shot-at-chance", "network", [])
    assert found.figure == "alignment.zero_shot_accuracy"
    assert found.value == 0.144
    assert abs(found.bound - 0.145) < 1e-12
    assert zero_shot(alignment({"a->b": (0.0, 0.2)}, accuracy=0.146, recall=0.001)) == []


def test_a_small_gallery_allows_three_standard_errors() -> None:
    # 0.5 + 3 sqrt(0.25 / 100) = 0.65
    few = {"gallery": 100, "classes": 2, "recall": 0.5}
    assert zero_shot(alignment({}, accuracy=0.64, **few))
    assert zero_shot(alignment({}, accuracy=0.66, **few)) == []
    assert zero_shot(alignment({}, accuracy=0.5, gallery=9, classes=2)) == []  # the bound is 1


def test_recall_tells_an_unaligned_space_from_one_without_classes() -> None:
    # 4 hits of 1000 are chance (0.001 + 3 sqrt(0.001 x 0.999 / 1000) = 0.0039985), 5 are not
    failed = only(zero_shot(alignment({}, accuracy=0.1, recall=0.0039)))
    assert "alignment failed" in failed.text
    assert "most similar one of the gallery of 1,000" in failed.text
    classless = only(zero_shot(alignment({}, accuracy=0.1, recall=0.0041)))
    assert "events are aligned, classes are not" in classless.text
    unknown = only(zero_shot(alignment({}, accuracy=0.1, recall=None)))
    assert "recall was not measured" in unknown.text


def test_edges_at_chance_in_a_network_that_is_not() -> None:
    edges = {
        "a->b": (0.3, 0.6),
        "b->a": (0.001, 0.11),
        "b->c": (0.002, 0.13),
        "c->b": (0.3, 0.12),
        "c->a": (None, None),
    }
    unaligned, classless = zero_shot(alignment(edges, accuracy=0.4, recall=0.2))
    assert unaligned.scope == classless.scope == "edge"
    assert unaligned.where == ["b->a", "b->c"]
    assert unaligned.value == 0.11
    assert unaligned.figure == "alignment.per_edge.EDGE.zero_shot_accuracy"
    assert unaligned.text.startswith("edges b->a, b->c: ")
    assert classless.where == ["c->b"]
    assert classless.text.startswith("edge c->b: ")


def test_nothing_measured_shows_nothing() -> None:
    silent = alignment({"a->b": (None, None)}, accuracy=None)
    assert zero_shot(silent) == []
    assert overfitting(silent, {"a~b": 0.01}, 128) == []
    assert overfitting(silent, {}, 128) == []
    assert reconstruction(missing({}), LEARNED) == []
    nothing = {"mean": None, "ridge": None}
    assert reconstruction(missing({"a": nothing}), LEARNED) == []
    assert reconstruction(missing({"a": {}}), RIDGE) == []


def test_overfitting_is_a_recall_below_what_the_training_contrast_promises() -> None:
    # e^c - 1 = 1/9 at c = log(10/9): odds of 9 among 10, so of 1 among the 90 of the gallery:
    # p = 1/2, less 3 sqrt(1/4 / 91) = 0.157243; three quarters of p would be 0.375
    contrast = {"a~b": 0.10536051565782628}
    low = alignment(
        {"a->b": (0.30, None), "b->a": (0.38, None)}, accuracy=None, recall=0.9, gallery=91
    )
    found = only(overfitting(low, contrast, 11))
    assert (found.signature, found.scope) == ("overfitting", "network")
    assert abs(found.value - 0.34) < 1e-12
    assert abs(found.bound - 0.342757) < 1e-6
    high = alignment({"a->b": (0.31, None), "b->a": (0.38, None)}, accuracy=None, gallery=91)
    assert overfitting(high, contrast, 11) == []


def test_with_a_memory_the_same_contrast_promises_more() -> None:
    """10 negatives at one end and 10 + 3 * 11 at the other: sqrt(10 * 43) = 20.7 instead of 10."""
    edges = {"a->b": (0.4, None), "b->a": (0.4, None)}
    found = alignment(edges, accuracy=None, gallery=91)
    contrast = {"a~b": math.log(10 / 9)}
    assert overfitting(found, contrast, 11) == []  # promises 0.5, see above
    promised = 1 / (1 + 90 / 9 / math.sqrt(430))
    bound = only(overfitting(found, contrast, 11, memory=3)).bound
    assert bound == pytest.approx(0.75 * promised)
    assert promised - 3 * math.sqrt(promised * (1 - promised) / 91) > bound > 0.4
    # No better than guessing among 11 at one end and 44 at the other: nothing is promised.
    assert overfitting(found, {"a~b": math.log(22) + 0.01}, 11, memory=3) == []


def test_a_gap_of_less_than_a_quarter_is_ordinary() -> None:
    # c = 0 promises every event; 3 standard errors of p = 1 are 0
    def found(recall: float) -> list[Finding]:
        edges = {"a->b": (recall, None), "b->a": (recall, None)}
        return overfitting(alignment(edges, accuracy=None), {"a~b": 0.0}, 128)

    assert only(found(0.74)).bound == 0.75
    assert found(0.76) == []


def test_only_edges_with_a_contrast_count_for_overfitting() -> None:
    edges = {"a->b": (0.9, None), "b->a": (0.9, None), "b->c": (0.0, None), "c->b": (0.0, None)}
    assert overfitting(alignment(edges, accuracy=None), {"a~b": 0.001}, 128) == []
    assert overfitting(alignment(edges, accuracy=None), {"a~b": 0.001, "b~c": 0.001}, 128)
    assert overfitting(alignment(edges, accuracy=None), {"b~c": 900.0}, 128) == []


def test_an_nmse_near_that_of_the_train_mean() -> None:
    nodes = {"a": {"ridge": 0.951}, "b": {"ridge": 0.949}, "c": {"ridge": 0.3}}
    found = only(reconstruction(missing(nodes), RIDGE))
    assert (found.signature, found.scope, found.where) == ("reconstruction", "node", ["a"])
    assert (found.value, found.bound) == (0.951, 0.95)
    assert found.figure == "missing.per_node.NODE.estimators.ridge.nmse"
    assert "comparison_dim" in found.text
    everywhere = {"a": {"ridge": 0.951}, "b": {"ridge": 1.7}}
    found = only(reconstruction(missing(everywhere), RIDGE))
    assert (found.scope, found.where, found.value) == ("network", [], 1.7)


def test_diffusion_is_judged_where_it_is_used() -> None:
    nodes = {"a": {"diffusion": 1.2, "ridge": 0.3}}
    assert reconstruction(missing(nodes), RIDGE) == []
    found = only(reconstruction(missing(nodes, used="diffusion"), RIDGE))
    assert found.figure == "missing.per_node.NODE.estimators.diffusion.nmse"
    assert found.text.endswith("more training.rounds, inference.estimator=ridge.")


def test_a_neural_dual_map_is_judged_where_it_is_used() -> None:
    nodes = {"a": {"neural": 3.0, "ridge": 0.3}}
    found = only(reconstruction(missing(nodes, used="neural"), RIDGE))
    assert found.figure == "missing.per_node.NODE.estimators.neural.nmse"


def test_rows_without_an_answer_do_not_count_against_the_estimator() -> None:
    # a quarter is answered: they pull the NMSE to 1 - 0.05 / 4 where each is as bad as the bound
    def found(nmse: float, rows: int = 100) -> list[Finding]:
        nodes = missing({"a": {"ridge": nmse}}, rows=rows, unanswered=3 * rows // 4)
        return reconstruction(nodes, RIDGE)

    assert only(found(0.988)).bound == 0.9875
    assert found(0.987) == []
    assert found(1.0, rows=80)
    assert found(1.0, rows=76) == []  # 19 answers are too few to tell


def test_a_baseline_that_was_chosen_is_no_failure() -> None:
    nodes = {"a": {"train-mean": 1.0, "ridge": 1.2}}
    assert reconstruction(missing(nodes, used="train-mean"), RIDGE) == []


def test_learned_dual_maps_are_at_fault_where_ridge_is_not() -> None:
    nodes = {
        "a": {"mean": 0.951, "ridge": 0.3},
        "b": {"mean": 0.949, "ridge": 0.3},
        "c": {"mean": 1.5, "ridge": 1.5},
    }
    lag = only(reconstruction(missing(nodes | {"c": nodes["b"]}), LEARNED))
    assert (lag.signature, lag.where, lag.value) == ("dual-maps", ["a"], 0.951)
    assert "inference.dual_map=fitted" in lag.text
    assert reconstruction(missing(nodes | {"c": nodes["b"]}), RIDGE) == []
    lag, poor = reconstruction(missing(nodes, used="mean"), LEARNED)
    assert (lag.signature, lag.where) == ("dual-maps", ["a"])
    assert (poor.signature, poor.where) == ("reconstruction", ["c"])
    assert "inference.estimator=ridge" in poor.text


def test_a_text_lists_five_places_and_counts_the_rest() -> None:
    nodes = {f"n{k}": {"ridge": 1.0} for k in range(7)} | {"m": {"ridge": 0.1}}
    found = only(reconstruction(missing(nodes), RIDGE))
    assert len(found.where) == 7
    assert found.text.startswith("nodes n0, n1, n2, n3, n4 and 2 more: ")
