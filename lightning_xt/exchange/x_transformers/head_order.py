"""Order of heads and features in the weights of attention."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.positions.xpos import XPos


class HeadOrder(NamedTuple):
    """Heads and features of x-transformers in the order here.

    Args:
        heads: its query head by the one here: heads that share a key are neighbours here, and strided there.
        features: its feature of a head by the one here: rotated pairs are halves here, and neighbours there.
    """

    heads: Tensor
    features: Tensor

    def sort_queries(self, weight: Tensor) -> Tensor:
        """Sort the rows of the map of queries."""
        return weight.unflatten(0, (len(self.heads), -1))[self.heads][:, self.features].flatten(0, 1)

    def sort_keys(self, weight: Tensor) -> Tensor:
        """Sort the rows of the map of keys, whose heads have one order."""
        return weight.unflatten(0, (-1, len(self.features)))[:, self.features].flatten(0, 1)

    def sort_rows(self, weight: Tensor) -> Tensor:
        """Sort rows by query head, as many for each."""
        return weight.unflatten(0, (len(self.heads), -1))[self.heads].flatten(0, 1)

    def sort_columns(self, weight: Tensor) -> Tensor:
        """Sort columns by query head, as many for each."""
        return weight.unflatten(1, (len(self.heads), -1))[:, self.heads].flatten(1)

    def sort_mix(self, mix: Tensor) -> Tensor:
        """Sort a convolution that mixes heads, as a matrix from heads (rows) to heads (columns)."""
        return mix[self.heads][:, self.heads, 0, 0].mT


def find_head_order(ours: Attention) -> HeadOrder:
    """Find the order of heads and of rotated features of an attention."""
    shape = ours.shape
    heads = torch.arange(shape.heads).view(-1, shape.kv_heads).T.flatten()
    features = torch.arange(shape.dim_head)
    rotated = max((count_rotated(each) for each in ours.modules()), default=0)
    if rotated:
        features = torch.cat((features[:rotated:2], features[1:rotated:2], features[rotated:]))
    return HeadOrder(heads, features)


def count_rotated(position: object) -> int:
    """Return the features of a head that a position rotates in pairs."""
    return 2 * len(position.frequencies) if isinstance(position, Rotary | XPos) else 0
