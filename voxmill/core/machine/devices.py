"""Which device a model runs on, and how many threads torch takes. torch is imported only when a device is asked for."""

from voxmill.core.errors import UserError


def resolve_device(name: str, *, setting: str = "device") -> str:
    """The torch device of "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Args:
        setting: the option or key that `name` was read from, for the message.

    Raises:
        UserError: torch does not know this name, or the machine has no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{setting} = {name!r}: no device of that name; use auto, cpu or cuda") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise UserError(f"{setting} = {name!r}: there is no such CUDA device here; use cpu or auto")
    return name


def limit_threads(threads: int) -> None:
    """Lets torch use this many CPU threads in this process."""
    import torch

    torch.set_num_threads(threads)
