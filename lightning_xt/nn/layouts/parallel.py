from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step


class Parallel(Layout):
    """Compute attention and feedforward of each layer side by side, from one normed input, and add both to the stream.

    Wang and Komatsuzaki, 2021 (GPT-J), https://github.com/kingoflolz/mesh-transformer-jax; Chowdhery et al., 2022
    (PaLM), https://arxiv.org/abs/2204.02311
    Cross-attention, if there is any, is a third branch. Shift, scale, residual and dropout of a layer see the sum.
    """

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        first, *others = kinds
        return [Step(first, layer, beside=tuple(others)) for layer in range(self.depth)]
