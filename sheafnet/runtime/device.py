"""Where nodes compute: the one place that knows whether there is a GPU.

torch is imported only where a device is opened, so that whoever starts a run stays light.
"""

from typing import TYPE_CHECKING

from sheafnet.config import Config

if TYPE_CHECKING:
    import torch

_WHOLE = 10_000
"""Ray reserves GPUs in ten-thousandths."""


def open_device(config: Config) -> "torch.device":
    """The device of all nodes of this process; with ``cuda`` the first GPU that it may see.

    On a GPU, convolutions are made to repeat bit for bit and to compute in full float32, as
    everything else does: torch would let them round to TF32.

    Raises:
        ConfigError: torch can use no GPU here.
    """
    import torch

    if config.run.device == "cuda":
        if not torch.cuda.is_available():
            built = "for CUDA" if torch.version.cuda else "for the CPU only"
            raise config.fault(
                f"run.device = cuda: torch {torch.__version__}, built {built}, can use no GPU in "
                "this process. Choose run.device: cpu, or see that the driver (`nvidia-smi`), a "
                "CUDA build of torch and CUDA_VISIBLE_DEVICES offer one.",
                "run",
                "device",
            )
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(config.run.device)


def gpu_share(config: Config, actors: int, gpus: int) -> float:
    """What each of `actors` actors reserves of one of `gpus` GPUs; 0 where they use the CPU.

    An actor computes on one GPU, so that what is left of two does not add up: a GPU has room for
    the whole number of shares that fit into it.

    Raises:
        ConfigError: there is no GPU, or the actors do not fit; says what would.
    """
    run = config.run
    if run.device == "cpu":
        return 0.0
    if gpus < 1:
        raise config.fault(
            f"run.device = cuda: {actors} actors would share the GPUs of Ray, which has none. "
            "Choose run.device: cpu, or machines on which `nvidia-smi` lists a GPU; of a running "
            "cluster `ray status` tells what it has.",
            "run",
            "device",
        )
    equal = _WHOLE // -(-actors // gpus)
    share = equal if run.gpus_per_actor is None else round(run.gpus_per_actor * _WHOLE)
    each = _WHOLE // max(share, 1)
    if gpus * each < actors:
        raise config.fault(
            f"run.gpus_per_actor = {share / _WHOLE:g}: {actors} actors x {share / _WHOLE:g} GPUs "
            f"do not fit: a GPU has room for {each}, the {gpus} of Ray for {gpus * each}. Choose "
            f"at most {equal / _WHOLE:g}, leave it out for an equal share, or raise "
            f"run.nodes_per_actor until there are at most {gpus * each} actors.",
            "run",
            "gpus_per_actor",
        )
    return share / _WHOLE
