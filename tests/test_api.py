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
    heavy = "torch", "ray", "matplotlib", "pyarrow"
    code = f"import sys, sheafnet.cli; print(*{{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
