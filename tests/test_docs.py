"""The documentation against the program: keys, defaults, bounds, figures, commands, links."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
import yaml
from pydantic import BaseModel

import sheafnet
from sheafnet import cli, errors
from sheafnet.bench.figures import read_results
from sheafnet.bench.report import markdown
from sheafnet.bench.suite import PARTS
from sheafnet.config import (
    Config,
    EdgeConfig,
    EdgeDefaults,
    EvaluationConfig,
    GraphConfig,
    InferenceConfig,
    LinkConfig,
    MethodConfig,
    Model,
    Named,
    NodeConfig,
    NodeDefaults,
    PilotConfig,
    RunConfig,
    TrainingConfig,
)
from sheafnet.datasets import DATASETS
from sheafnet.faults import (
    ActivityFaults,
    DownFaults,
    EdgeFaults,
    FaultsConfig,
    NodeFaults,
    PartitionFaults,
    ScheduleFaults,
    StragglerFaults,
)
from sheafnet.network.ledger import Fate
from sheafnet.network.profiles import PROFILES
from sheafnet.nodes import encoders
from sheafnet.runtime.diagnosis import PATIENCE, WINDOW
from sheafnet.runtime.finding import NEAR, SIGMAS, Signature
from sheafnet.runtime.rundir import Status
from sheafnet.runtime.shortfalls import FEWEST_ANSWERED, KEPT
from sheafnet.runtime.summary import Summary
from sheafnet.studies.contenders import read_contenders
from sheafnet.studies.figures import figures_of, headline
from sheafnet.studies.keys import read_axis
from sheafnet.studies.scale import Scale, Size
from sheafnet.topology import build_topology
from tests.conftest import MakeConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICES.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("concepts/*.md")),
    *sorted(DOCS.glob("howto/*.md")),
    ROOT / "experiments" / "RESULTS.md",
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "plugin" / "README.md",
]

SECTIONS: dict[str, type[Model]] = {
    "Top level": Config,
    "`method`": MethodConfig,
    "`graph`": GraphConfig,
    "`nodes`": NodeConfig,
    "`edges`": EdgeConfig,
    "`defaults.node`": NodeDefaults,
    "`defaults.edge`": EdgeDefaults,
    "`training`": TrainingConfig,
    "`inference`": InferenceConfig,
    "`pilot`": PilotConfig,
    "`evaluation`": EvaluationConfig,
    "`run`": RunConfig,
    "`faults`": FaultsConfig,
    "`faults.edges`": EdgeFaults,
    "`faults.down`": DownFaults,
    "`faults.nodes`": NodeFaults,
    "`faults.stragglers`": StragglerFaults,
    "`faults.partitions`": PartitionFaults,
    "`faults.activity`": ActivityFaults,
    "`faults.activity.schedule`": ScheduleFaults,
    "`links`": LinkConfig,
    "`mlp`": encoders.MlpOptions,
    "`conv`": encoders.ConvOptions,
    "`conv1d`": encoders.Conv1dOptions,
    **{f"`{name}`": info.options for name, info in DATASETS.items()},
}


def sections(page: Path) -> dict[str, str]:
    """The text under each heading of a page, up to the next heading of any level."""
    found = {}
    for part in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.M)[1:]:
        heading, _, text = part.partition("\n")
        assert heading not in found, f"{page.name}: two headings {heading!r}"
        found[heading] = text
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below a header, as text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in table if not set(row[0]) <= {"-"}]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [str(block) for block in found]


# docs/configuration.md


def written(value: Any) -> str:
    """A default as the tables write it."""
    if value is None:
        return "`none`"
    if isinstance(value, Named):
        return f"`{value.name}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def bounds(schema: Any) -> Iterator[str]:
    """Every bound in the JSON schema of one key, as the tables write it."""
    signs = {
        "minimum": "≥",
        "maximum": "≤",
        "exclusiveMinimum": ">",
        "exclusiveMaximum": "<",
    }
    if isinstance(schema, list):
        for part in schema:
            yield from bounds(part)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key in signs:
                yield f"{signs[key]} {'2^63' if value == 2**63 else format(value, 'g')}"
            elif key == "enum":
                yield from (f"`{choice}`" for choice in value)
            elif key in {"const", "pattern"}:
                yield f"`{value}`"
            elif key in {"minItems", "maxItems"} and "prefixItems" not in schema:
                yield str(value)
            elif key in {"anyOf", "items"}:
                yield from bounds(value)


def models(model: Any) -> Iterator[type[Model]]:
    """`model` and every model that its fields are made of, but for named things."""
    if isinstance(model, type) and issubclass(model, Model) and not issubclass(model, Named):
        yield model
        for field in model.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(model):
        yield from models(argument)


def test_every_model_of_the_configuration_has_a_section() -> None:
    documented = set(SECTIONS.values())
    within = {"Defaults"}  # has no keys of its own
    missing = {m.__name__ for m in models(Config) if m not in documented}
    assert missing == within
    assert set(DATASETS) | {"mlp", "conv", "conv1d"} <= {name.strip("`") for name in SECTIONS}
    own = encoders.__name__
    built_in = {n for n, kind in encoders.ENCODERS.items() if kind.build.__module__ == own}
    assert built_in == {"mlp", "conv", "conv1d"}


@pytest.mark.parametrize("heading", SECTIONS)
def test_configuration_keys_defaults_and_bounds(heading: str) -> None:
    model = SECTIONS[heading]
    table = rows(sections(DOCS / "configuration.md")[heading])
    assert table[0] == ["key", "type", "default", "bounds", "meaning"]
    documented = {row[0].strip("`"): row for row in table[1:]}
    assert list(documented) == list(model.model_fields)
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        _, kind, default, bound, _ = documented[name]
        assert kind
        if field.is_required():
            assert default == "required", name
        elif isinstance(field.default, BaseModel) and not isinstance(field.default, Named):
            assert default == "", name
        else:
            assert default == written(field.default), name
        for expected in bounds(properties[name]):
            assert expected in bound, name


def test_options_that_the_command_line_shortens_are_named() -> None:
    intro = (DOCS / "configuration.md").read_text(encoding="utf-8").partition("## Top level")[0]
    for option in ("--rounds", "--seed", "--backend", "--address", "--nodes-per-actor", "--method"):
        assert option in intro


# docs/summary.md


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def schema_paths(annotation: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted paths of all leaves of a model; `*` stands for a key or a place in a list."""
    arguments = get_args(annotation)
    optional = [part for part in arguments if is_model(part) and type(None) in arguments]
    if optional:
        (annotation,), arguments = optional, ()
    if is_model(annotation):
        for name, field in annotation.model_fields.items():
            yield from schema_paths(field.annotation, (*path, field.alias or name))
    elif arguments and getattr(annotation, "__origin__", None) is list and is_model(arguments[0]):
        yield from schema_paths(arguments[0], (*path, "*"))
    elif getattr(annotation, "__origin__", None) is dict:
        yield from schema_paths(arguments[1], (*path, "*"))
    else:
        yield ".".join(path)


def documented_paths(text: str) -> Iterator[str]:
    """The paths in the first column of the tables, braces and capitals spelled out."""
    for row in rows(text):
        for pattern in re.findall(r"^`([^`]+)`$", row[0]):
            phases = pattern.replace("PHASE", "{train,evaluation,calibration,inference}")
            parts = re.split(r"\{([^}]*)\}", phases)
            choices = [part.split(",") if k % 2 else [part] for k, part in enumerate(parts)]
            for words in itertools.product(*choices):
                yield re.sub(r"\b(EDGE|NODE|K|ESTIMATOR|INDEX|FATE)\b", "*", "".join(words))


def test_every_figure_of_the_summary_is_documented_and_no_other() -> None:
    parts = sections(DOCS / "summary.md")
    headings = ["The run", "Communication", "Alignment", "Pilot", "Missing modalities", "Sheaf"]
    text = "\n".join(parts[heading] for heading in [*headings, "Time and memory", "Diagnosis"])
    found = list(documented_paths(text))
    assert len(found) == len(set(found))
    assert set(found) == set(schema_paths(Summary))


@pytest.mark.parametrize("link", ["null", "ble"])
def test_a_real_run_has_the_documented_keys(tmp_path: Path, tiny: MakeConfig, link: str) -> None:
    config = tiny("training.rounds=2", f"defaults.edge.link={link}")
    result = sheafnet.simulate(config, run_dir=tmp_path / "run")
    run = sheafnet.RunDirectory.open(result.directory)
    parts = sections(DOCS / "summary.md")
    about = {row[0].strip("`") for row in rows(parts["`run.json`"])[1:]}
    mishaps = {"error", "left_out", "rejections", "recoveries", "resumed", "incarnation"}
    assert set(run.about()) == about - mishaps - {"stale_frames", "pilot", "settled"}
    rounds = parts["`rounds.jsonl`"]
    for line in run.lines("rounds"):
        for key in line:
            assert f"`{key}`" in rounds, f"{line['phase']}: {key}"
    fates = [row[0].strip("`") for row in rows(parts["`ledger.jsonl`"])[1:]]
    assert fates == list(get_args(Fate))
    for line in run.lines("ledger"):
        assert set(line) - {"phase", "round", "edge", "radio"} <= set(fates)
        for key in line.get("radio", ()):
            assert f"`{key}`" in parts["`ledger.jsonl`"]
    files = {row[0].strip("`") for row in rows(parts["What a run leaves behind"])[1:]}
    left = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert {re.sub(r"/.*\.", "/<node>.", name) for name in left} == files - {"checkpoints/"}


def test_every_status_is_documented() -> None:
    text = sections(DOCS / "summary.md")["`run.json`"]
    for status in get_args(Status):
        assert f"`{status}`" in text


# docs/studies.md


def test_the_figures_of_studies_are_documented_and_found_in_the_summary(
    tmp_path: Path, tiny: MakeConfig
) -> None:
    chosen = (
        "evaluation.few_shot=[2]",
        "inference.diffusion_iterations=1",
        "inference.neural_hidden=4",
        "inference.abstain=0.9",
        "inference.calibration=12",
        "defaults.edge.link=ble",
        "defaults.edge.comparison_dim=auto",
        "pilot.rounds=2",
    )
    config = tiny("training.rounds=2", *chosen)
    result = sheafnet.simulate(config, run_dir=tmp_path / "run")
    whole, figures = result.summary.model_dump(mode="json"), headline(result.summary)
    table = rows(sections(DOCS / "studies.md")["Figures"])[1:]
    named = {row[0].strip("`").replace("_K", "_2"): row for row in table}
    known = figures_of(config)
    assert list(named) == list(known)
    assert set(figures) == set(known)
    for name, (_, unit, path) in named.items():
        value: Any = whole
        for part in path.strip("`").replace(".K", ".2").split("."):
            value = value[part]
        assert figures[name] == value, name
        assert unit == known[name].unit


@pytest.mark.parametrize("command", ["compare", "sweep", "scale"])
def test_every_option_of_studies_is_documented(command: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    parameters = group.get_command(None, command).params
    table = rows(sections(DOCS / "studies.md")[f"`{command}`"])[1:]
    named = {name for row in table for name in re.findall(r"`(--[a-z-]+)`", row[0])}
    assert named == {p.opts[0] for p in parameters} - {"--help"}


# docs/performance.md


def test_the_options_and_parts_of_the_benchmark_are_documented() -> None:
    group: Any = typer.main.get_command(cli.app)
    parameters = group.get_command(None, "bench").params
    page = DOCS / "performance.md"
    options, meanings = (
        rows(sections(page)["Performance"]),
        rows(sections(page)["What the figures mean"]),
    )
    named = {name for row in options[1:] for name in re.findall(r"`(--[a-z]+)[` ]", row[0])}
    assert named == {p.opts[0] for p in parameters} - {"--help"}
    assert {row[0].partition(",")[0] for row in meanings[1:]} == set(PARTS)
    for part in PARTS:
        assert f"`{part}`" in options[1][1]


def test_the_tables_of_the_benchmark_are_those_of_its_file() -> None:
    """After a new measurement, what `--show docs/performance.json --format markdown` prints."""
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    tables = page.partition("<!-- tables -->\n")[2].partition("<!-- end of tables -->")[0]
    results = read_results(DOCS / "performance.json")
    assert not results.quick
    assert {figure.part for figure in results.figures} == set(PARTS)
    assert tables == markdown(results)


def test_the_columns_of_scale_are_documented() -> None:
    table = rows(sections(DOCS / "studies.md")["`scale`"])
    named = [name for row in table for name in re.findall(r"`([a-z_]+)`", row[0])]
    size = Size(8, None, 8, 2, 1.0, 2.0, 3.0, None, None)
    columns = Scale("ring", "ring", (size,), (), Path()).rows()[0]
    assert sorted(named) == sorted({re.sub(r"^(train|inference)_", "", name) for name in columns})


# docs/diagnosis.md


def test_every_signature_is_documented_with_its_bounds() -> None:
    page = (DOCS / "diagnosis.md").read_text(encoding="utf-8")
    table = {row[0].strip("`"): row for row in rows(page)[1:]}
    assert tuple(table) == get_args(Signature)
    for signature in table:
        assert f"`{signature}`" in sections(DOCS / "summary.md")["Diagnosis"]
    assert f"≥ {1 - NEAR:g} log B" in table["contrast-at-chance"][2]
    assert f"≤ 1/{1 / NEAR**2:g} of" in table["collapse"][2]
    assert f"{NEAR:g} (1 − 1/classes)" in table["zero-shot-at-chance"][2]
    assert f"{SIGMAS:g} standard errors" in table["zero-shot-at-chance"][2]
    assert f"below {KEPT:g} of it" in table["overfitting"][2]
    assert f"1 − {NEAR:g} ·" in table["reconstruction"][2]
    assert f"newest {WINDOW} rounds is judged, from round {PATIENCE} on" in page
    assert f"from {FEWEST_ANSWERED} answered rows on" in " ".join(page.split())


@pytest.mark.parametrize(
    "path",
    ["docs/diagnosis.md", "sheafnet/runtime/diagnosis.py", "sheafnet/runtime/shortfalls.py"],
)
def test_options_that_a_diagnosis_advises_exist(path: str) -> None:
    parts: dict[str, type[Model]] = {
        "training": TrainingConfig,
        "inference": InferenceConfig,
        "evaluation": EvaluationConfig,
    }
    text = (ROOT / path).read_text(encoding="utf-8")
    named = re.findall(rf"\b({'|'.join(parts)})\.([a-z_]+)", text)
    assert len(named) > 5
    for part, key in named:
        assert key in parts[part].model_fields, f"{part}.{key}"


# docs/links.md


def test_the_named_profiles_are_documented_with_their_constants() -> None:
    parts = sections(DOCS / "links.md")
    table = {row[0].strip("`"): row[1:] for row in rows(parts["Named profiles"])[1:]}
    assert list(table) == list(PROFILES)
    for name, profile in PROFILES.items():
        energies = (profile.send_j_per_bit, profile.receive_j_per_bit)
        told = ["not known" if each is None else f"{each:.4g}" for each in energies]
        assert table[name] == [f"{profile.bandwidth_bps:.10g}", f"{profile.latency_s:g}", *told]
        assert f"`{name}`" in parts, "where its constants come from"


# docs/wire-format.md


def test_the_frames_in_hex_are_what_the_program_beside_them_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = DOCS / "wire-format.md"
    (program,) = blocks(page, "python")
    exec(compile(program, str(page), "exec"), {})
    projection, request = capsys.readouterr().out.split("\n")[:2]
    annotated, plain = blocks(page, "text")
    lines = [re.split(r" {2,}(?=[a-zA-Z1-9])", line)[0] for line in annotated.splitlines()]
    assert " ".join(" ".join(lines).split()) == projection
    assert plain.strip() == request


# README.md


def shell_lines() -> Iterator[list[str]]:
    """Every command of README, CONTRIBUTING and three pages, in a block or inline."""
    pages = ("docs/studies.md", "docs/performance.md", "docs/links.md")
    for name in ("README.md", "CONTRIBUTING.md", *pages):
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += [m[2:] for m in re.findall(r"^\$ .*$", text, re.M)]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        inline = re.findall(r"`([^`]+)`", prose)
        lines += [" ".join(code.split()) for code in inline if re.match(r"(make|sheafnet) ", code)]
        for line in lines:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


COMMANDS = [words for words in shell_lines() if words[0] == "sheafnet"]
WRITTEN = {"mine.yaml", "mydata.yaml"}
"""Files that the README makes before it uses them."""


def test_the_readme_has_commands() -> None:
    assert {words[0] for words in shell_lines()} <= {"make", "sheafnet", "ray"}
    assert {words[1] for words in COMMANDS} == {
        "simulate",
        "validate",
        "topology",
        "datasets",
        "show",
        "compare",
        "sweep",
        "bench",
        "scale",
        "resume",
        "report",
        "watch",
        "export",
        "doctor",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_of_the_readme_parse(words: list[str]) -> None:
    group: Any = typer.main.get_command(cli.app)
    context = group.make_context("sheafnet", [], resilient_parsing=True)
    command = group.get_command(context, words[1])
    assert command is not None, words[1]
    options = {name: p for p in command.params for name in p.opts}
    for word in words[2:]:
        if word.startswith("-"):
            assert word in options, word
        if word.endswith(".yaml"):
            assert word in WRITTEN or (ROOT / word).is_file(), word
    parsed = command.make_context(words[1], words[2:]).params
    for given in parsed.get("over") or ():
        read_axis(given, "--over")
    if words[1] == "compare":
        read_contenders(parsed["methods"])
    for override in parsed.get("overrides") or ():
        path = parsed.get("topology") or parsed.get("file") or "sheafnet/studies/scale.yaml"
        if str(path) not in WRITTEN:
            sheafnet.load_config(ROOT / path, [override])


def test_make_targets_of_the_documentation_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.M))
    used = [words[1:] for words in shell_lines() if words[0] == "make"]
    assert used
    for words in used:
        assert words[0] in targets, words
        for word in words[1:]:
            assert f"$({word.partition('=')[0]})" in makefile, word


def test_the_readme_names_every_exit_code() -> None:
    table = rows(sections(ROOT / "README.md")["What a run leaves behind"])
    codes = {int(row[0]) for row in table[1:]}
    kinds = vars(errors).values()
    raised = {k.exit_code for k in kinds if isinstance(k, type) and k.__module__ == errors.__name__}
    assert codes == {0} | raised


def test_the_readme_names_the_shipped_topologies_and_data_sets() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "topologies").glob("*.yaml"):
        assert f"`{path.name}`" in text
    for name in DATASETS:
        assert name in text


def test_the_output_in_the_readme_fits_a_terminal_of_80_columns() -> None:
    (output,) = blocks(ROOT / "README.md", "console")
    assert max(map(len, output.splitlines())) <= 80


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own data, its topology, and the Python API, as they stand, only smaller."""
    monkeypatch.chdir(tmp_path)
    data, api = blocks(ROOT / "README.md", "python")
    network, arrays = blocks(ROOT / "README.md", "yaml")
    exec(compile(data, "README.md", "exec"), {})
    Path("mydata.yaml").write_text(arrays)
    config = sheafnet.load_config("mydata.yaml")
    assert sheafnet.Plan.open(config).dataset.classes == 5
    edited = yaml.safe_load(network) | {"name": "edited", "dataset": "synthetic"}
    edited["nodes"].append("mote2")
    topology = build_topology(Config.model_validate(edited))
    assert [(node.dim, node.encoder.name) for node in topology.nodes][1] == (32, "mlp")
    assert [edge.dim for edge in topology.edges] == [16, 8]
    small = '"training.rounds=2", "evaluation.support=60", "evaluation.gallery=50"'
    assert '"topologies/ring.yaml"' in api
    assert '"training.rounds=50"' in api
    api = api.replace('"topologies/ring.yaml"', repr(str(ROOT / "topologies" / "ring.yaml")))
    names: dict[str, Any] = {}
    exec(compile(api.replace('"training.rounds=50"', small), "README.md", "exec"), names)
    assert len(names["losses"]) == 2
    assert np.isfinite(names["losses"]).all()
    assert "by chance 0.02" in capsys.readouterr().out


# Links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


def test_the_licence_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
