"""What doctor says where all is well, and where something is not."""

import json
import shutil

import pytest

from sheafnet.errors import ActorError
from sheafnet.network.hub import Hub
from sheafnet.runtime import doctor
from tests.runtime.test_cli import call

NAMES = [
    *("Python", "packages", "plug-ins", "torch"),
    *("sockets of one machine", "sockets between machines", "Ray", "memory", "disk"),
]


def found(monkeypatch: pytest.MonkeyPatch, **broken: object) -> dict[str, doctor.Check]:
    """All checks, some functions of the module replaced; Ray is started by the last test here."""
    monkeypatch.setattr(doctor, "_ray", lambda: "not looked at")
    for name, value in broken.items():
        monkeypatch.setattr(doctor, name, value)
    return {check.name: check for check in doctor.checks()}


def test_all_is_well_here(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = found(monkeypatch)
    assert list(checks) == NAMES
    assert [check.name for check in checks.values() if not check.well] == []
    assert "encrypted TCP" in checks["sockets between machines"].found
    assert "Unix sockets" in checks["sockets of one machine"].found


def test_what_is_wrong_is_named_and_the_rest_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray() -> str:
        raise ActorError("Ray does not start on this machine: no port")

    monkeypatch.setattr(Hub, "receive", lambda *_: [])
    usage = shutil.disk_usage("/")._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    checks = found(
        monkeypatch,
        free_bytes=lambda: 300 * 10**6,
        _PACKAGES=("numpy", "no-such-package"),
        _ray=no_ray,
    )
    wrong = {check.name: check.found for check in checks.values() if not check.well}
    assert set(wrong) == {name for name in NAMES if name not in ("Python", "plug-ins", "torch")}
    assert "no-such-package is not installed" in wrong["packages"]
    assert "did not come back" in wrong["sockets of one machine"]
    assert "no port" in wrong["Ray"]
    assert "0.3 GB are free; Ray and one actor take 0.6 GB" in wrong["memory"]
    assert "1 MB are free" in wrong["disk"]


def test_the_exit_code_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    well = doctor.Check("memory", True, "much")
    monkeypatch.setattr(doctor, "checks", lambda: iter([well]))
    assert call(monkeypatch, "doctor") == 0
    assert "well   memory: much" in capsys.readouterr().out
    wrong = doctor.Check("Ray", False, "[red]does not start[/red]")
    monkeypatch.setattr(doctor, "checks", lambda: iter([well, wrong]))
    assert call(monkeypatch, "doctor") == 1
    assert "wrong  Ray: [red]does not start[/red]" in capsys.readouterr().out
    assert call(monkeypatch, "doctor", "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [check["well"] for check in told] == [True, False]


@pytest.mark.ray
def test_ray_is_started_and_stopped() -> None:
    import ray

    check = doctor._checked("Ray", doctor._ray)
    assert check.well, check.found
    assert "starts, runs a task and stops" in check.found
    assert not ray.is_initialized()
