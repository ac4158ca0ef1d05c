"""Nothing that is read becomes code: what could do that is not in the package at all.

Ray pickles the calls of its actors; that is between the processes of one run, and no file.
"""

import ast
from pathlib import Path

import pytest

import sheafnet

PACKAGE = Path(sheafnet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "code",
    "codeop", "runpy", "imp", "ctypes",
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"},
    "torch": {"load", "save"},
    "os": {"system", "popen"},
}
LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}
ALLOWED = {
    # What a configuration names, when it is run: modules in `imports`, paths, and entry points of
    # installed distributions. See docs/reliability.md.
    ("plugins.py", "import_module"),
    ("plugins.py", "entry_points"),
    # Modules of the package itself.
    ("__init__.py", "import_module"),
    ("bench/child.py", "import_module"),
    ("runtime/fork_server.py", "import_module"),
    # The worker of Ray, for a process of this user's: its socket is in a folder of theirs alone.
    ("runtime/fork_server.py", "runpy"),
    # Sources of the bundled data, of known SHA-256, read by who rebuilds it.
    ("datasets/bundled/rebuild.py", "allow_pickle"),
}


def findings(source: str, name: str) -> set[tuple[str, str]]:
    """What of the above the module `name` uses, as (module, name)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module:
            root = node.module.split(".")[0]
            names = {alias.name for alias in node.names}
            found |= names if root in MODULES else names & CALLS.get(root, set())
            found |= names & ({"import_module", "entry_points"} if root == "importlib" else set())
        elif isinstance(node, ast.Call):
            found |= _of_call(node)
        elif isinstance(node, ast.Attribute) and node.attr in LOADERS:
            found.add(node.attr)
    return {(name, what) for what in found}


def _of_call(node: ast.Call) -> set[str]:
    found = set()
    if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
        found.add(node.func.id)
    if isinstance(node.func, ast.Attribute):
        if isinstance(node.func.value, ast.Name):
            found |= {node.func.attr} & CALLS.get(node.func.value.id, set())
        found |= {node.func.attr} & {"import_module", "entry_points"}
    for keyword in node.keywords:
        given = keyword.value.value if isinstance(keyword.value, ast.Constant) else True
        if keyword.arg in ("allow_pickle", "shell") and given is not False:
            found.add(keyword.arg)
    return found


def test_the_package_has_no_way_to_run_what_it_reads() -> None:
    found = set()
    for path in FILES:
        found |= findings(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE)))
    assert found <= ALLOWED, found - ALLOWED
    assert len(FILES) > 100


def test_numpy_is_always_told_not_to_unpickle() -> None:
    """`np.load` unpickles only if told to; that it is not told so stands in every call."""
    calls = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                calls += 1
                assert "allow_pickle" in {keyword.arg for keyword in node.keywords}, path
    assert calls > 5


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "loads"),
        ("import torch\ntorch.load('x')", "load"),
        ("from torch import load", "load"),
        ("import yaml\nyaml.load(t, yaml.Loader)", "Loader"),
        ("import yaml\nyaml.unsafe_load(t)", "unsafe_load"),
        ("eval('1')", "eval"),
        ("exec(text)", "exec"),
        ("import os\nos.system('ls')", "system"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell"),
        ("import numpy as np\nnp.load(p, allow_pickle=flag)", "allow_pickle"),
        ("import importlib\nimportlib.import_module(x)", "import_module"),
        ("from importlib.metadata import entry_points", "entry_points"),
        ("from importlib import metadata\nmetadata.entry_points()", "entry_points"),
    ],
)
def test_each_of_them_would_be_found(source: str, what: str) -> None:
    assert ("m.py", what) in findings(source, "m.py")


@pytest.mark.parametrize(
    "source",
    ["import torch\nmodel.eval()", "import re\nre.compile('x')", "np.load(p, allow_pickle=False)"],
)
def test_what_only_looks_like_them_is_not(source: str) -> None:
    assert findings(source, "m.py") == set()
