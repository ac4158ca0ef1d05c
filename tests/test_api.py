"""The public names, pinned: adding or losing one is a decision."""

import sheafnet


def test_public_names() -> None:
    assert sorted(sheafnet.__all__) == [
        "Config",
        "Plan",
        "Progress",
        "Result",
        "RunDirectory",
        "SheafnetError",
        "Summary",
        "Topology",
        "__version__",
        "build_topology",
        "load_config",
        "simulate",
    ]
    for name in sheafnet.__all__:
        assert getattr(sheafnet, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(sheafnet, "simulation")
