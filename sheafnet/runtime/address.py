"""The address of a Ray cluster, tried from outside before this process joins it."""

import socket
import subprocess
import sys

from sheafnet.errors import ClusterError

_CONNECT_DEADLINE_S = 5.0
_JOIN_DEADLINE_S = 30.0


def check_address(address: str) -> None:
    """Refuse an address that no Ray head node answers at.

    Args:
        address: ``host:port``, or ``auto``.

    Raises:
        ClusterError: with the address and what to do.
    """
    if address != "auto":
        _check_port(address)
    _try_to_join(address)


def _try_to_join(address: str) -> None:
    """Join from another process first, which can be ended: what is no Ray may never answer."""
    attempt = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", attempt, address],
            capture_output=True,
            text=True,
            timeout=_JOIN_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"--address {address}: something listens there, but it did not answer as a Ray head "
            f"node within {_JOIN_DEADLINE_S:.0f} s."
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        token = " Set RAY_AUTH_MODE=token and give its token." if "AuthToken" in done.stderr else ""
        raise ClusterError(f"--address {address}: cannot join this Ray cluster: {last}.{token}")


def _check_port(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal():
        raise ClusterError(
            f"--address {address}: must be host:port of a Ray head node (as `ray start --head` "
            "prints it), or auto."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_DEADLINE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"--address {address}: nothing answers there ({error}). Is Ray running "
            "(`ray status`), and is the port open?"
        ) from None
