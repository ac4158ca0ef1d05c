"""A device that is not there, so that what a GPU would refuse is refused on every machine.

Inside `PretendedDevice` a tensor on `DEVICE` is a `Pretended` one: torch takes it for a tensor of
a device other than the CPU, and its values lie in an ordinary tensor behind it, on which every
operation is really carried out. As on a GPU, an operation that is given tensors of both places is
refused, numpy is refused, and only a copy goes from the one to the other. It is stricter than a
GPU, which lets an index, and a single number in arithmetic, lie on the CPU.

So a run that ends inside it has put every tensor on its device, mixed none, and sent and saved
arrays of the CPU; and since the arithmetic is the CPU's, its results have to be the CPU's bit for
bit. What it cannot tell is how a GPU rounds, or whether its kernels take these arguments: that is
left to the tests that need a GPU.

torch lets a build without CUDA differentiate on ``meta`` but not on ``cuda``, hence the name.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")


class Pretended(Tensor):
    """A tensor on `DEVICE` with its values in `behind`."""

    behind: Tensor

    @staticmethod
    def __new__(cls, behind: Tensor) -> "Pretended":
        made: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            behind.shape,
            strides=behind.stride(),
            storage_offset=behind.storage_offset(),
            dtype=behind.dtype,
            device=DEVICE,
        )
        made.behind = behind
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretended({self.behind!r})"

    def tolist(self) -> Any:
        """As numbers, which torch itself gives of no subclass."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on {DEVICE} outside of PretendedDevice")


class PretendedDevice(TorchDispatchMode):
    """Carries out what is asked of `Pretended` tensors, and refuses what a GPU would."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()
        """How often each operation was carried out on `DEVICE`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_flatten((args, kwargs))[0]
        here = [x for x in leaves if isinstance(x, Pretended)]
        plain = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, Pretended)]
        goal = kwargs.get("device")
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if here and plain and not copies:
            raise RuntimeError(f"{func}: tensors on {DEVICE} and on the CPU")
        there = goal == DEVICE if goal is not None else bool(here)
        if goal is not None:
            kwargs["device"] = torch.device("cpu")
        if not here and not there:
            return func(*args, **kwargs)
        self.done[func.overloadpacket.__name__] += 1
        known = {id(x.behind): x for x in here}
        found = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
        if func is torch.ops.aten.copy_.default:
            return args[0]
        if not there:
            return found

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else Pretended(x)  # in place, or new

        return tree_map(wrapped, found)


def _behind(x: Any) -> Any:
    return x.behind if isinstance(x, Pretended) else x
