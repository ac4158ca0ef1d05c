"""Code of others: found by entry point and by path, used like ours, and blamed where it fails."""

import json
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sheafnet
from sheafnet.errors import (
    ConfigError,
    DatasetError,
    DivergenceError,
    Interrupted,
    PluginError,
    RunDirectoryError,
    SheafnetError,
)
from sheafnet.network.profiles import PROFILES, profiles_of
from sheafnet.nodes.encoders import find_encoder
from sheafnet.report.retrieved import retrieved
from sheafnet.runtime import doctor
from sheafnet.runtime.foreign import problem_of, references
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies.cells import Cell
from sheafnet.studies.figures import figures_of, headline
from tests.conftest import MakeConfig, of_phase
from tests.test_docs import DOCS, blocks

EXACT = ("training.exchange_gradients=true", "training.reconstruction_gradient=full")
QUICK = ("training.rounds=1", "inference.rounds=1")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module into the working directory, which is on no path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        monkeypatch.delitem(sys.modules, name, raising=False)
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr("sheafnet.plugins._FOUND", {})
    return write


def install(folder: Path, name: str, **groups: str) -> None:
    """The metadata of an installed distribution, as an installer writes it."""
    about = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"[sheafnet.{group}]\n{entry}\n" for group, entry in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))


# The page.


def test_everything_on_the_page_works_together(module) -> None:
    """One of each kind, named by its path; the module is in the working directory alone."""
    module("my_plugins", "\n\n".join(blocks(DOCS / "plugins.md", "python")))
    (text,) = blocks(DOCS / "plugins.md", "yaml")
    Path("own.yaml").write_text(text)
    config = sheafnet.load_config("own.yaml", ["run.backend=local", "training.rounds=6"])
    result = sheafnet.simulate(config, run_dir="run")
    summary, name = result.summary, "my_plugins:SHRUNK"
    assert summary.dataset == "my_plugins:COINS"
    found = summary.missing.estimators
    assert list(found) == ["mean", "ridge", "zero", "train-mean", name]
    assert (summary.missing.estimator, summary.missing.nmse) == (name, found[name].nmse)
    # Half way between two estimates: by convexity its error is at most the mean of theirs.
    assert found["ridge"].nmse is not None
    assert found["ridge"].nmse < found[name].nmse < (found["ridge"].nmse + 1) / 2
    assert found[name].accuracy is not None
    assert found[name].coverage_90 is None
    assert set(headline(summary)) == set(figures_of(config))
    assert headline(summary)["missing_nmse_my_plugins_SHRUNK"] == found[name].nmse
    assert summary.communication.train.radio is not None
    (link,) = {p.name for p in profiles_of(config, Plan.open(config).method.network) or ()}
    assert link == "my_plugins:ZIGBEE"
    run = sheafnet.load_run("run")
    for line in of_phase(list(run.directory.lines("rounds")), "train"):
        t, dim = config.training, 4  # d_ij is half of 8, on each of four edges
        own = t.contrastive_weight * 4 * line["contrastive"] + t.sheaf_weight / dim * line["energy"]
        own += t.reconstruction_weight * 4 * line["reconstruction"]
        assert line["loss"] == pytest.approx(own + line["objective"], rel=1e-4)
        assert line["objective"] > 0
    sheafnet.write_report(["run"], "report.html")
    assert name in Path("report.html").read_text(encoding="utf-8")


# Looked up.


def test_a_name_is_looked_up_among_entry_points_and_only_then_loaded(
    module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    module(
        "named_links",
        "from sheafnet import LinkConfig\nFAST = LinkConfig(name='f', bandwidth_bps=9)",
    )
    install(
        tmp_path / "site", "link-pack", links="fast = named_links:FAST\nwifi = named_links:FAST"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    Plan.open(tiny("defaults.edge.link=ble"))
    assert "named_links" not in sys.modules
    config = tiny("defaults.edge.link=fast")
    profiles = profiles_of(config, Plan.open(config).method.network) or ()
    assert {(p.name, p.bandwidth_bps) for p in profiles} == {("fast", 9.0)}
    with pytest.raises(ConfigError, match=r"no link is called 'fsat'\. Did you mean 'fast'"):
        Plan.open(tiny("defaults.edge.link=fsat"))
    # Ours stays ours, and doctor says so.
    config = tiny("defaults.edge.link=wifi")
    assert set(profiles_of(config, Plan.open(config).method.network) or ()) == {PROFILES["wifi"]}
    check = doctor._checked("plug-ins", doctor._plugins)
    assert not check.well
    assert "wifi is sheafnet's own name, which no plug-in can take" in check.found
    assert "link-pack 1.2 is not asked. Name it by its path, named_links:FAST" in check.found


def test_two_distributions_with_one_name_are_refused(
    module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    module("pack_a", "")
    for name in ("pack-a", "pack-b"):
        install(tmp_path / "site", name, encoders=f"twin = {name.replace('-', '_')}:E")
    install(tmp_path / "site", "pack-single", encoders="alone = single:E\nmlp = single:E")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ConfigError, match="twin") as refused:
        Plan.open(tiny("defaults.node.encoder=twin"))
    assert "pack-a 1.2 (pack_a:E), pack-b 1.2 (pack_b:E)" in str(refused.value)
    check = doctor._checked("plug-ins", doctor._plugins)
    assert not check.well
    for path in ("pack_a:E", "pack_b:E", "single:E"):  # each of them, whatever the others
        assert f"is not asked. Name it by its path, {path}" in check.found
    assert check.found.endswith("Usable: encoder alone (single:E, pack-single 1.2)")


def test_doctor_lists_what_is_installed_without_loading_it(
    module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("pack_c", "raise SystemExit('loaded')")
    install(tmp_path / "site", "pack-c", encoders="deep = pack_c:E", objectives="o = pack_c:O")
    monkeypatch.syspath_prepend(tmp_path / "site")
    check = doctor._checked("plug-ins", doctor._plugins)
    assert check.well
    assert check.found == "encoder deep (pack_c:E, pack-c 1.2), objective o (pack_c:O, pack-c 1.2)"


WRONG = {
    "no module": ("nowhere_at_all:E", "there is no module nowhere_at_all. It has to be installed"),
    "no submodule": ("kinds.more:E", "there is no module kinds.more"),
    "no attribute": ("kinds:EE", "kinds has no EE. It has E, DICT."),
    "another kind": ("kinds:O", "is an ObjectiveKind; it has to be an instance of EncoderKind"),
    "a class": ("kinds:Model", "is the class Model"),
    "no path": ("kinds/x.py:E", "write module:attribute, as in my_package.my_module:MY_ENCODER"),
    "no name": ("mpl", "no encoder is called 'mpl'. Did you mean 'mlp'"),
}
KINDS = """
from sheafnet import EncoderKind, Model, ObjectiveKind
E = EncoderKind("e", Model, lambda *_: None, lambda _: None)
O = ObjectiveKind(lambda *_: None)
DICT = EncoderKind("odd", dict, lambda *_: None, lambda _: None)
TEXT = ObjectiveKind("not callable")
"""


@pytest.mark.parametrize("case", WRONG)
def test_what_leads_nowhere_is_the_configurations_fault(
    module, tiny: MakeConfig, case: str
) -> None:
    module("kinds", KINDS)
    path, words = WRONG[case]
    with pytest.raises(ConfigError) as refused:
        Plan.open(tiny(f"defaults.node.encoder={path}"))
    assert words in str(refused.value)
    assert "node a" in str(refused.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataset=nowhere_at_all:D", "there is no module"),
        ("dataset=overlap", "dataset.name = 'overlap': no such data set. Did you mean 'overlap-mn"),
        ("training.objective=spraed", "no objective is called 'spraed'"),
        ("training.objective={name: kinds:O, wieght: 2}", "training.objective.wieght: unknown key"),
        ("inference.estimators=[kinds:E]", "it has to be an instance of EstimatorKind"),
        ("inference.estimators=[knn]", "no estimator is called 'knn'"),
        ("defaults.node.encoder=kinds:DICT", "'kinds:DICT': its options are the class dict; they"),
        ("training.objective=kinds:TEXT", "'kinds:TEXT': its loss is a str; it has to be a func"),
        ("edges.0.link=kinds:E", "edges.0.link: the link 'kinds:E' is an EncoderKind"),
    ],
)
def test_every_kind_is_looked_up_and_refused(
    module, tiny: MakeConfig, override: str, words: str
) -> None:
    module("kinds", KINDS)
    with pytest.raises((ConfigError, DatasetError)) as refused:
        Plan.open(tiny(override))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("inference.estimator=own:E", "have to be listed in inference.estimators, too."),
        ("inference.estimator=rigde", "'rigde': no such estimator. Did you mean 'ridge'? Known: "),
        ("inference.estimators=own:E", "'own:E': takes a list: write [own:E]."),
        ("inference.estimators=[ridge]", "ridge is sheafnet's own and measured anyway"),
        ("inference.estimators=['a.b:c', 'a.b:c']", "would have the same columns"),
        ("inference.estimators=[train_mean]", "train-mean and train_mean would have the same"),
    ],
)
def test_estimators_are_listed_once_and_by_names_of_their_own(
    tiny: MakeConfig, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"inference\.estimators?") as refused:
        tiny(override)
    assert words in str(refused.value)


@pytest.mark.parametrize("method", ["local", "concat-supervised"])
def test_an_objective_needs_projections(tiny: MakeConfig, method: str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.objective: under {method} a node has no"):
        tiny(f"method={method}", "training.objective=own:O")


def test_what_a_run_names_of_others_is_known_without_looking(tiny: MakeConfig) -> None:
    config = tiny(
        "dataset=x:D",
        "nodes.1={id: b, encoder: y:E}",
        "training.objective=o",
        "inference.estimators=[z:F]",
        "links=[{name: mine, bandwidth_bps: 1}]",
        "defaults.edge.link=mine",
        "edges.0.link=v:L",
        "edges.1.link=v:L",
        "edges.2.link=ble",
    )
    assert [tuple(each) for each in references(config)] == [
        ("data set", "dataset", "x:D"),
        ("encoder", "nodes.1.encoder", "y:E"),
        ("objective", "training.objective", "o"),
        ("estimator", "inference.estimators.0", "z:F"),
        ("link", "edges.0.link", "v:L"),
    ]
    assert references(tiny("defaults.edge.link=5g")) == ()
    problem = problem_of((), references(config))
    assert problem is not None
    assert problem.startswith("dataset: the data set 'x:D': there is no module x.")


# Blamed.

FAILING = '''
import os
import signal
import sys

import numpy as np
from sheafnet import DatasetInfo, EncoderKind, EstimatorKind, Model, ObjectiveKind
from sheafnet.datasets.synthetic import INFO

class Options(Model):
    how: str = ""

def at(place, how, good, bad=None):
    """`good`, unless `how` says that it goes wrong at this place."""
    if how == place:
        raise KeyError("a mistake of mine")  # the line
    return bad(good) if how.startswith(place + " ") else good

def build(shape, dim, options):
    import torch
    from torch import nn
    class Back(torch.autograd.Function):
        @staticmethod
        def forward(context, section):
            context.calls = 0
            return section.clone()
        @staticmethod
        def backward(context, gradient):
            context.calls += 1
            return at(f"backward {context.calls}", options.how, gradient)
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(shape[0], dim)
            self.norm = nn.BatchNorm1d(dim) if options.how == "forward buffer" else None
        def forward(self, sample):
            bad = {"forward shape": lambda h: h[:, 1:], "forward dtype": lambda h: h.double(),
                   "forward nan": lambda h: h / 0, "forward list": lambda h: [h],
                   "forward dropout": nn.Dropout(0.5), "forward buffer": self.norm,
                   "forward exit": lambda h: sys.exit("no"),
                   "forward signal": lambda h: os.kill(os.getpid(), signal.SIGTERM)}
            if options.how.startswith("backward"):
                return Back.apply(self.linear(sample))
            return at("forward", options.how, self.linear(sample), bad.get(options.how))
    bad = {"build module": lambda _: "no module", "build shared": lambda m: SHARED.setdefault(0, m)}
    return at("build", options.how, Flat(), bad.get(options.how))

SHARED = {}

ENCODER = EncoderKind("e", Options, build, lambda shape: None)

def checked(shape):
    raise RuntimeError("cannot check")

CHECKING = EncoderKind("e", Options, build, checked)

class Data:
    def __init__(self, options, topology, seed):
        self.how, self.data = options.how, INFO.open(INFO.options(classes=4), topology, seed)
        self.classes = at("open", self.how, 4, lambda _: 1)
        self.labels_per_edge = self.how != "distinct"
    def size(self, split):
        return None if self.how == "size" else self.data.size(split)
    def distinct(self, split):
        return 10**9 if self.how == "distinct" else self.data.distinct(split)
    def modality(self, node):
        return "signal"
    def source(self, node):
        return View(self.how, at("source", self.how, self.data.source(node)))

class View:
    def __init__(self, how, source):
        self.how, self.inner = how, source
        self.shape = at("shape", how, source.shape, lambda _: (0,))
    def samples(self, split, events):
        bad = {"samples shape": lambda x: x[:, 1:], "samples dtype": lambda x: x * 1.0j,
               "samples nan": lambda x: x * np.float32("nan"), "samples list": list}
        return at("samples", self.how, self.inner.samples(split, events), bad.get(self.how))
    def labels(self, split, events, edge):
        bad = {"labels dtype": lambda y: y.astype(np.int32), "labels range": lambda y: y + 1}
        return at("labels", self.how, self.inner.labels(split, events, edge), bad.get(self.how))

DATA = DatasetInfo("d", "s", "signal", "s", "l", "c", Options, Data)

def estimate(answers, rows, moments, options):
    mean = moments.mean_section.expand(rows, -1)
    bad = {"estimate shape": lambda h: h[1:], "estimate nan": lambda h: h / 0,
           "estimate none": lambda h: None,
           "estimate drawn": lambda h: h + h.new_empty(1).normal_()}
    return at("estimate", options.how, mean, bad.get(options.how))

ESTIMATOR = EstimatorKind(estimate, Options)

def loss(section, pairs, options):
    if options.how == "inplace":
        hidden = section.exp()
        term = (hidden * hidden).mean()
        hidden.zero_()
        return term
    bad = {"loss shape": lambda t: t[None], "loss nan": lambda t: t / 0,
           "loss float": lambda t: 1.0, "loss drawn": lambda t: t * t.new_empty(()).uniform_()}
    return at("loss", options.how, section.square().mean(), bad.get(options.how))

OBJECTIVE = ObjectiveKind(loss, Options)
'''

ENCODER, DATA = "defaults.node.encoder", "dataset"
ESTIMATOR, OBJECTIVE = "inference.estimators", "training.objective"
MINE = "KeyError: 'a mistake of mine' ("
BLAMED = [
    (ENCODER, "build", f"node a: the encoder 'failing:ENCODER' failed in its build: {MINE}"),
    (ENCODER, "build module", "node a: the encoder 'failing:ENCODER' built no torch.nn.Module"),
    (ENCODER, "build shared", "node b: the encoder 'failing:ENCODER' built a module whose "
     "parameter linear.weight it had built before, for node a; each build has to make a new "
     "module"),
    (ENCODER, "forward", "node a, train round 0: the encoder 'failing:ENCODER' failed in its "
     f"forward: {MINE}"),
    (ENCODER, "forward shape", "gave the shape (16, 7); it has to be (16, 8)"),
    (ENCODER, "forward dtype", "gave a tensor of torch.float64; it has to be float32"),
    (ENCODER, "forward list", "gave a list, where a tensor belongs"),
    (ENCODER, "forward dropout", "node a, train round 0: the encoder 'failing:ENCODER' drew from "
     "torch's global generator in its forward"),
    (ENCODER, "forward buffer", "changed its buffer norm.num_batches_tracked in its forward"),
    (ENCODER, "forward exit", "'failing:ENCODER' failed in its forward: SystemExit: no ("),
    (DATA, "open", f"tiny: the data set 'failing:DATA' failed in its open: {MINE}"),
    (DATA, "open classes", "gave 1 as classes; it takes a whole number from 2"),
    (DATA, "size", "gave None as size('test'); it takes a whole number from 0"),
    (DATA, "distinct", "gave 1,000,000,000 as distinct('train')"),
    (DATA, "source", f"node a: the data set 'failing:DATA' failed in source: {MINE}"),
    (DATA, "shape zero", "node a: the data set 'failing:DATA' has samples of shape (0,)"),
    (DATA, "samples", "node a, train split: the data set 'failing:DATA' failed in samples: "
     f"{MINE}"),
    (DATA, "samples shape", "gave the shape (1, 63); it has to be (1, 64)"),
    (DATA, "samples dtype", "gave an array of complex64; it has to be float32"),
    (DATA, "samples nan", "node a, train split: the data set 'failing:DATA' gave NaN or infinity"),
    (DATA, "samples list", "gave a list, where an array belongs"),
    (DATA, "labels", f"node a, train split: the data set 'failing:DATA' failed in labels: {MINE}"),
    (DATA, "labels dtype", "gave an array of int32; it has to be int64"),
    (DATA, "labels range", "with 4 classes they are 0 to 3"),
    (ESTIMATOR, "estimate", "inference round 0: the estimator 'failing:ESTIMATOR' failed in its "
     f"estimate: {MINE}"),
    (ESTIMATOR, "estimate shape", "the estimator 'failing:ESTIMATOR' gave the shape"),
    (ESTIMATOR, "estimate nan", "the estimator 'failing:ESTIMATOR' gave NaN or infinity"),
    (ESTIMATOR, "estimate none", "gave None, where a tensor belongs"),
    (OBJECTIVE, "loss", "train round 0: the objective 'failing:OBJECTIVE' failed in its loss: "
     f"{MINE}"),
    (OBJECTIVE, "loss shape", "gave the shape (1,); it has to be ()"),
    (OBJECTIVE, "loss float", "gave a float, where a tensor belongs"),
    (ESTIMATOR, "estimate drawn", "drew from torch's global generator in its estimate"),
    (OBJECTIVE, "loss drawn", "drew from torch's global generator in its loss"),
    (OBJECTIVE, "inplace", "the objective 'failing:OBJECTIVE' failed in the backward pass: "
     "RuntimeError: one of the variables"),
]  # fmt: skip


def chosen(key: str, how: str) -> str:
    """The override that has a thing of the module above fail."""
    name = {ENCODER: "ENCODER", DATA: "DATA", ESTIMATOR: "ESTIMATOR", OBJECTIVE: "OBJECTIVE"}[key]
    entry = f"{{name: 'failing:{name}', how: {how}}}"
    return f"{key}=[{entry}]" if key == ESTIMATOR else f"{key}={entry}"


@pytest.mark.parametrize(("key", "how", "words"), BLAMED, ids=lambda v: v if len(v) < 24 else "")
def test_what_fails_says_whose_code_it_is(
    module, tiny: MakeConfig, key: str, how: str, words: str
) -> None:
    path = module("failing", FAILING)
    with pytest.raises(PluginError) as failed:
        sheafnet.simulate(tiny(*QUICK, chosen(key, how)), run_dir="run")
    message = str(failed.value)
    assert words in message
    assert message.endswith("It is no code of sheafnet: mend it there, or tell its authors.")
    if words.endswith(MINE):
        line = FAILING.splitlines().index('        raise KeyError("a mistake of mine")  # the line')
        assert f"({path}:{line + 1}, in at)" in message
        assert isinstance(failed.value.__cause__, KeyError)
    assert failed.value.exit_code == 6
    assert str(pickle.loads(pickle.dumps(failed.value))) == message
    if Path("run").exists():
        about = json.loads(Path("run/run.json").read_text())
        assert (about["status"], about["error"]) == ("failed", message)


def of_node(node: int, how: str) -> str:
    """The override that has the encoder of one node fail."""
    return f"nodes.{node}={{id: {'abcd'[node]}, encoder: {{name: 'failing:ENCODER', how: {how}}}}}"


@pytest.mark.parametrize(
    ("node", "how", "more"),
    [
        (1, "backward 1", ["training.objective=other:O"]),
        (1, "backward 2", [*EXACT, "training.objective=other:O"]),
        (1, "backward 1", ["method=local"]),
        (0, "backward 1", ["method={name: concat-supervised, hub: a}"]),
        (1, "backward 1", ["method={name: concat-supervised, hub: a}"]),
    ],
    ids=["own", "returned", "alone", "hub", "sensor"],
)
def test_a_failing_backward_is_blamed_under_every_method(
    module, tiny: MakeConfig, node: int, how: str, more: list[str]
) -> None:
    """On the encoder, whose frame it is, and not on the objective that is there too."""
    module("failing", FAILING)
    kind = "ObjectiveKind(lambda section, *_: 0 * section.sum())"
    module("other", f"from sheafnet import ObjectiveKind\nO = {kind}")
    data = "dataset={name: multiple-features}"
    config = tiny(*QUICK, data, "evaluation.support=200", of_node(node, how), *more)
    with pytest.raises(PluginError) as failed:
        sheafnet.simulate(config, run_dir="run")
    whose = f"node {'abcd'[node]}, train round 0: the encoder 'failing:ENCODER' failed"
    assert str(failed.value).startswith(f"{whose} in the backward pass: {MINE}")


def test_where_no_frame_tells_whose_backward_failed_both_are_named(
    module, tiny: MakeConfig
) -> None:
    module("failing", FAILING)
    module("other", "from failing import ENCODER as E")
    config = tiny(*QUICK, "defaults.node.encoder=other:E", chosen(OBJECTIVE, "inplace"))
    with pytest.raises(PluginError) as failed:
        sheafnet.simulate(config, run_dir="run")
    assert (
        "the encoder 'other:E' or the objective 'failing:OBJECTIVE' failed in the backward"
        in str(failed.value)
    )


def test_a_signal_in_the_code_of_others_interrupts(module, tiny: MakeConfig) -> None:
    """With a handler as Ray installs it in the process that starts a run."""
    module("failing", FAILING)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        with pytest.raises(Interrupted):
            sheafnet.simulate(tiny(*QUICK, chosen(ENCODER, "forward signal")), run_dir="run")
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("key", "how"), [(ENCODER, "forward nan"), (OBJECTIVE, "loss nan")], ids=["forward", "loss"]
)
def test_nan_in_training_names_the_plugin_and_is_a_divergence(
    module, tiny: MakeConfig, key: str, how: str
) -> None:
    module("failing", FAILING)
    with pytest.raises(
        DivergenceError, match=r"node [ab], train round 0: the .* gave NaN or infinity"
    ):
        sheafnet.simulate(tiny(*QUICK, chosen(key, how)), run_dir="run")


def test_a_check_and_an_import_that_fail(module, tiny: MakeConfig) -> None:
    path = module("failing", FAILING)
    with pytest.raises(PluginError, match=f"its check .*: RuntimeError: cannot check .{path}:"):
        Plan.open(tiny("defaults.node.encoder=failing:CHECKING"))
    for text, words in (
        ("x = 1\nraise SystemExit('no')", "SystemExit: no ({path}:2, in <module>)"),
        (
            "import not_there_either",
            "ModuleNotFoundError: No module named 'not_there_either' ({path}:1",
        ),
        ("x = (", "SyntaxError: '(' was never closed (bad_import.py, line 1) ({path}:1)"),
    ):
        path = module("bad_import", text)
        with pytest.raises(PluginError) as failed:
            Plan.open(tiny("defaults.node.encoder=bad_import:E"))
        assert f"failed in its import: {words.format(path=path)}" in str(failed.value)
    module("bad_exit", "raise SystemExit('no')")
    with pytest.raises(ConfigError, match="bad_exit cannot be imported: SystemExit: no"):
        Plan.open(tiny("imports=[bad_exit]"))


def test_errors_that_a_plugin_raises_on_purpose_are_reported_as_ours(
    module, tiny: MakeConfig
) -> None:
    module(
        "lacking",
        "from sheafnet import DatasetInfo, Model\nfrom sheafnet.errors import DatasetError\n"
        "def lack(*_):\n    raise DatasetError('coins.csv is missing')\n"
        "D = DatasetInfo('d', *'smzlc', Model, lack)",
    )
    with pytest.raises(DatasetError, match=r"tiny: coins\.csv is missing"):
        Plan.open(tiny("dataset={name: lacking:D}"))


def test_an_encoder_that_imports_register_is_blamed_too(
    module, tiny: MakeConfig, monkeypatch
) -> None:
    from sheafnet.nodes import encoders

    monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))
    module("failing", FAILING)
    module(
        "registering",
        "from failing import *\nfrom sheafnet.nodes.encoders import register\n"
        "register(EncoderKind('mine', Options, build, lambda shape: None))",
    )
    config = tiny(*QUICK, "imports=[registering]", "defaults.node.encoder={name: mine, how: build}")
    with pytest.raises(PluginError, match=r"the encoder 'mine' \(failing\) failed in its build"):
        sheafnet.simulate(config, run_dir="run")
    assert find_encoder("mlp", "").ours


# Used.


def test_an_objective_sees_what_is_there_anyway_and_nothing_crosses_for_it(
    module, tiny: MakeConfig
) -> None:
    module(
        "watching",
        "from sheafnet import ObjectiveKind\nSEEN = []\n"
        "def loss(section, pairs, options):\n"
        "    SEEN.append((section, pairs))\n"
        "    return 0 * section.sum()\n"
        "O = ObjectiveKind(loss)",
    )
    told = [
        sheafnet.simulate(tiny(*EXACT, *more), run_dir=f"run{len(more)}").summary
        for more in ((), ("training.objective=watching:O",))
    ]
    assert told[0].communication == told[1].communication
    assert told[0].alignment == told[1].alignment
    seen: list[Any] = sys.modules["watching"].SEEN
    assert len(seen) == 6 * 4  # rounds, nodes
    assert sorted(len(pairs) for _, pairs in seen[:4]) == [2, 2, 3, 3]  # of 5 edges, both ends
    for section, pairs in seen:
        assert section.shape == (16, 8)
        assert section.requires_grad
        for own, received in pairs:
            assert own.shape == received.shape == (16, 4)
            assert own.requires_grad
            assert not received.requires_grad


@pytest.mark.parametrize("method", ["imagebind", "local", "concat-supervised"])
def test_estimators_of_plugins_are_measured_under_every_method(
    module, tiny: MakeConfig, method: str
) -> None:
    """One that is the train mean, written again."""
    module("failing", FAILING)
    more = [] if method == "local" else ["training.objective=failing:OBJECTIVE"]
    more = more if method == "imagebind" else []
    config = tiny(
        *QUICK, f"method={method}", *more,
        "dataset={name: multiple-features}", "inference.estimators=[failing:ESTIMATOR]",
        "evaluation.support=200",
    )  # fmt: skip
    found = sheafnet.simulate(config, run_dir="run").summary.missing.estimators
    assert found["failing:ESTIMATOR"] == found["train-mean"]
    assert found["ridge"].accuracy is not None


# Kept.


def test_versions_of_plugins_are_kept_and_tell_runs_of_a_study_apart(
    module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    """Those of entry points, of paths and of imports; nothing is loaded for it."""
    for name in ("kept_a", "kept_b", "kept_c", "kept_nowhere"):
        module(name, "raise SystemExit('loaded')")
    site = tmp_path / "site"
    install(site, "kept-a", links="kept = kept_a:L")
    for letter in "bc":
        install(site, f"kept-{letter}")
        (site / f"kept_{letter}-1.2.dist-info" / "top_level.txt").write_text(f"kept_{letter}\n")
    monkeypatch.syspath_prepend(site)
    paths = ("edges.0.link=kept_b:L", "edges.1.link=kept_nowhere:L", "imports=[kept_c]")
    config = tiny("defaults.edge.link=kept", *paths)
    directory = RunDirectory.create(config, "run")
    told = {k: v for k, v in directory.about()["versions"].items() if k.startswith("kept")}
    assert told == {"kept-a": "1.2", "kept-b": "1.2", "kept-c": "1.2"}
    assert directory.resumable() == config
    key = Cell(config, ()).key
    assert key == Cell(config, ()).key
    (site / "kept_a-1.2.dist-info" / "METADATA").write_text("Name: kept-a\nVersion: 1.3\n")
    assert Cell(config, ()).key != key
    directory.mark_resumed(config, 0, [])
    assert directory.about()["resumed"][0]["versions"]["kept-a"] == "1.3"
    with pytest.raises(
        RunDirectoryError, match=r"run: was begun with the plug-in kept-a 1\.2; .*1\.3"
    ):
        directory.resumable()
    began = {"sheafnet": sheafnet.__version__, "kept-a": "1.3", "kept-c": "1.2", "gone": "0.1"}
    directory.mark("running", versions=began)
    with pytest.raises(RunDirectoryError, match=r"gone 0\.1; here it is of no version"):
        directory.resumable()
    directory.mark("running", versions={k: v for k, v in began.items() if k != "gone"})
    with pytest.raises(RunDirectoryError, match=r"kept-b of no version; here it is 1\.2"):
        directory.resumable()
    assert "plugins" not in Cell(tiny(), ()).resolved


def test_code_of_a_package_that_sheafnet_needs_too_is_no_other_on_resume(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    config = tiny("imports=[msgpack]")
    directory = RunDirectory.create(config, tmp_path / "run")
    assert directory.about()["versions"]["msgpack"]
    assert directory.resumable() == config


# Looked at.


def test_looking_at_a_run_loads_nothing_that_it_names(
    module, tmp_path: Path, tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a path nor the entry point of an installed distribution."""
    from tests.report.test_damaged import exported, reported, watched

    pictures = ("dataset={name: multiview-mnist}", "defaults.node.encoder={name: conv}")
    sheafnet.simulate(tiny(*QUICK, *pictures, "evaluation.support=100"), run_dir="run")
    for name in ("stranger", "installed_one"):
        module(name, "raise SystemExit('executed')")
    install(tmp_path / "site", "pack-d", encoders="tempting = installed_one:E")
    monkeypatch.syspath_prepend(tmp_path / "site")
    config = Path("run/config.yaml")
    whole = yaml.safe_load(config.read_text())
    assert len(retrieved(sheafnet.load_run("run"))) == 3  # it has what is left out below
    strange = {
        "dataset": {"name": "stranger:D"},
        "training": whole["training"] | {"objective": {"name": "stranger:O"}},
        "inference": whole["inference"] | {"estimators": [{"name": "stranger:F"}]},
        "defaults": {"edge": {"link": "stranger:L"}, "node": {"encoder": "stranger:E"}},
    }
    run = Path("run")
    for changes in (strange, {"defaults": {"node": {"encoder": "tempting"}}}):
        config.write_text(yaml.safe_dump(whole | changes))
        if changes is strange:
            assert (reported(run), exported(run)) == ("written", "written")
        assert watched(run) == "shown"
        assert retrieved(sheafnet.load_run(run)) == []
        assert not {"stranger", "installed_one"} & set(sys.modules)
        with pytest.raises(SheafnetError, match="executed"):  # it would tell
            sheafnet.load_run(run).plan  # noqa: B018
