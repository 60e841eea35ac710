"""Check of a model's size against the free memory: systems hand out more than they have, and kill who uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook


def get_free_memory() -> int | None:
    """Return the bytes that this machine has free or can free; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


@contextmanager
def refuse_without_memory() -> Iterator[None]:
    """Refuse to create more parameters than the free memory holds: a MemoryError before they are written."""
    free, needed = get_free_memory(), 0
    counted: set[int] = set()

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal needed
        # Other devices have their own memory.
        if free is None or parameter is None or parameter.device.type != "cpu":
            return
        storage = parameter.untyped_storage()
        # Shared storage counts once.
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            needed += storage.nbytes()
        if needed > free:
            raise MemoryError(f"there is not enough memory for the model's parameters: {free / 1e9:.1f} GB are free")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
