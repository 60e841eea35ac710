"""Training tokens resident on the device: a batch transfers eight bytes per window."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.data.text.lanes import TrainingLanes
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.windows import SampledWindows

BLOCK = 1 << 26  # tokens copied at once
HELD_AS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
"""Type on the device by the bytes of a token."""
ROOM = 4
"""With `auto`, tokens become resident on a GPU whose free memory holds them this many times."""


class WindowStarts(NamedTuple):
    """A batch of windows as the offset of the first token of each.

    Args:
        starts: offset of the first token of each window.
        place: `begins` and `group` of a `LaneBatch`. None = the windows are in no lanes.
    """

    starts: Int[Tensor, " b"]
    place: tuple[bool, int] | None = None


class Starts(Dataset[WindowStarts]):
    """The starts of training windows, in place of the windows."""

    def __init__(self, windows: SampledWindows | TrainingLanes) -> None:
        self.windows = windows

    def __getitem__(self, sample: int) -> WindowStarts:
        """Return the start of window `sample`, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> WindowStarts:
        """Return the starts of a batch."""
        return WindowStarts(torch.from_numpy(self.windows.offsets(samples)), self.windows.place(samples))


class ResidentTokens:
    """The tokens of a split as a tensor on a device, in as many bytes as in their file.

    They are copied in blocks, so that host memory never holds all of them.
    """

    def __init__(self, tokens: MappedTokens, device: torch.device) -> None:
        # torch gathers few unsigned types: the others are held as signed ones of the same bits.
        kind = HELD_AS[tokens.dtype.itemsize]
        self.tokens = torch.empty(len(tokens), dtype=kind, device=device)
        self._bits = (1 << 8 * tokens.dtype.itemsize) - 1
        for first in range(0, len(tokens), BLOCK):
            block = tokens[first : first + BLOCK]
            self.tokens[first : first + len(block)] = torch.from_numpy(block.copy()).view(kind)

    def windows(self, starts: Int[Tensor, " b"], seq_len: int) -> Int[Tensor, "b n"]:
        """Gather the windows that begin at the starts, n = seq_len + 1."""
        offsets = torch.arange(seq_len + 1, device=self.tokens.device)
        found = self.tokens[starts[:, None] + offsets].long()
        return found if self.tokens.dtype == torch.uint8 else found & self._bits


def load_resident(
    tokens: MappedTokens, device: torch.device, resident: bool | Literal["auto"], what: str
) -> ResidentTokens | None:
    """Copy the tokens of a split to the device of training; return None if they stay in their file.

    The corpus is called `what` in messages. ValueError if the option `resident` is true and the device has no room.
    """
    if resident is False or (resident == "auto" and device.type != "cuda"):
        return None
    size = len(tokens) * tokens.dtype.itemsize
    if resident != "auto" or ROOM * size <= _free_bytes(device):
        try:
            return ResidentTokens(tokens, device)
        except RuntimeError as error:
            # Out of memory on a CPU has no dedicated exception class.
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            if resident is True:
                raise ValueError(
                    f"--data.resident is true, but the {size / 1e9:.1f} GB of {what} do not fit on {device}; omit it"
                ) from error
    rank_zero_info(
        f"{what}: its {size / 1e9:.1f} GB stay in the file, because {device} has "
        f"{_free_bytes(device) / 1e9:.1f} GB free; batches are prefetched"
    )
    return None


def _free_bytes(device: torch.device) -> int:
    """Return the free bytes of a GPU's memory."""
    free, _ = torch.cuda.mem_get_info(device)
    return free
