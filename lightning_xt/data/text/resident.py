"""Training tokens that live on the device, so that a batch is eight bytes a window on its way there."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.data.text.mapped_bytes import MappedBytes
from lightning_xt.data.text.windows import TrainingWindows

BLOCK = 1 << 26  # bytes copied at once
ROOM = 4
"""On a GPU tokens are made resident by themselves if its free memory holds them so many times."""


class WindowStarts(NamedTuple):
    """What a loader gives instead of windows: the first token of each."""

    starts: Int[Tensor, " b"]


class Starts(Dataset[WindowStarts]):
    """The starts of training windows, in the place of the windows.

    Args:
        windows: gives the starts.
    """

    def __init__(self, windows: TrainingWindows) -> None:
        self.windows = windows

    def __getitem__(self, sample: int) -> WindowStarts:
        """The start of window `sample`, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> WindowStarts:
        """The starts of a batch."""
        return WindowStarts(torch.from_numpy(self.windows.offsets(samples)))


class ResidentTokens:
    """The tokens of a split as a tensor of uint8 on a device.

    Args:
        tokens: the split; it is copied in blocks, so that it is never in the computer's memory as a whole.
        device: where to.
    """

    def __init__(self, tokens: MappedBytes, device: torch.device) -> None:
        self.tokens = torch.empty(len(tokens), dtype=torch.uint8, device=device)
        for first in range(0, len(tokens), BLOCK):
            block = tokens[first : first + BLOCK]
            self.tokens[first : first + len(block)] = torch.from_numpy(block.copy())

    def windows(self, starts: Int[Tensor, " b"], seq_len: int) -> Int[Tensor, "b n"]:
        """The windows that begin at the starts, n = seq_len + 1."""
        offsets = torch.arange(seq_len + 1, device=self.tokens.device)
        return self.tokens[starts[:, None] + offsets].long()


def made_resident(
    tokens: MappedBytes, device: torch.device, resident: bool | Literal["auto"], what: str
) -> ResidentTokens | None:
    """The tokens on the device, or None where they stay in their file.

    Args:
        tokens: the split.
        device: where the model is trained.
        resident: the option.
        what: the corpus, for messages.

    Raises:
        ValueError: they are to be resident, and the device has no room.
    """
    if resident is False or (resident == "auto" and device.type != "cuda"):
        return None
    if resident != "auto" or ROOM * len(tokens) <= _free(device):
        try:
            return ResidentTokens(tokens, device)
        except RuntimeError as error:
            # A CPU's lack of memory has no class of its own.
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            if resident is True:
                raise ValueError(
                    f"data.resident is true, but the {len(tokens) / 1e9:.1f} GB of {what} do not fit on {device}; "
                    "leave it away"
                ) from error
    rank_zero_info(
        f"{what}: its {len(tokens) / 1e9:.1f} GB stay in the file, because {device} has {_free(device) / 1e9:.1f} GB "
        "free; batches are read ahead"
    )
    return None


def _free(device: torch.device) -> int:
    """Bytes of a GPU's memory that nothing uses."""
    free, _ = torch.cuda.mem_get_info(device)
    return free
