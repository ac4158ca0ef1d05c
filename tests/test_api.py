"""The public names, pinned: adding or losing one is a decision."""

import subprocess
import sys

import sheafnet


def test_public_names() -> None:
    assert sorted(sheafnet.__all__) == [
        "Comparison",
        "Config",
        "DatasetInfo",
        "EncoderKind",
        "EstimatorKind",
        "LinkConfig",
        "LoadedRun",
        "Model",
        "ObjectiveKind",
        "Plan",
        "PluginError",
        "Progress",
        "Result",
        "RunDirectory",
        "Scale",
        "SheafnetError",
        "Summary",
        "Sweep",
        "Topology",
        "__version__",
        "build_topology",
        "compare",
        "load_config",
        "load_run",
        "resume",
        "scale",
        "simulate",
        "sweep",
        "write_report",
    ]
    for name in sheafnet.__all__:
        assert getattr(sheafnet, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(sheafnet, "simulation")


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = "torch", "ray", "networkx", "matplotlib", "pyarrow"
    code = f"import sys, sheafnet.cli; print(*{{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_actor_loads_only_what_its_nodes_need() -> None:
    """Every host waits for it, and takes its memory: torch and Ray, but no graphs and pictures."""
    needless = "networkx", "matplotlib", "pyarrow", "rich", "typer", "PIL"
    code = (
        "import gc, sys; from sheafnet.runtime.ray_cluster import _import_torch\n"
        "_import_torch(); from sheafnet.runtime import host\n"
        f"print('torch' in sys.modules, gc.isenabled(), *{{*{needless}}} & {{*sys.modules}})\n"
        "gc.collect(); print(gc.get_freeze_count() > 100_000 > len(gc.get_objects()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]
