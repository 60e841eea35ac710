from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer, MixerFactory
from lightning_xt.system.option_checks import check_slots


class Hybrid(Mixer):
    """Average the normed outputs of mixers side by side, such as attention and a recurrence, by learned weights.

    Dong et al., 2024 (Hymba). https://arxiv.org/abs/2411.13676
    Each mixer has its own output map before its norm; the paper's mixers share only the one behind the average.
    In x-transformers: attn_hybrid_module, attn_hybrid_learned_mix; without norms, and its weights depend on the token.

    Args:
        recipes: the mixers, at least two.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipes: Sequence[MixerFactory]) -> None:
        super().__init__()
        if len(recipes) < 2:
            raise ValueError(
                f"attention: Hybrid has {len(recipes)} recipe(s) to average; give at least two, or the mixer itself"
            )
        self.mixers = nn.ModuleList(recipe(shape) for recipe in recipes)
        self.weights = nn.Parameter(torch.ones(len(recipes), shape.dim))
        self.to_out = nn.Linear(shape.dim, shape.dim, bias=False)

    @property
    def value_shape(self) -> tuple[int, int] | None:
        shapes = (each.value_shape for each in self._list_mixers())
        return next((shape for shape in shapes if shape is not None), None)

    def check_first_values(self, shape: tuple[int, int]) -> None:
        for each in self._list_mixers():
            each.check_first_values(shape)

    @property
    def shared(self) -> tuple[tuple[str, str], ...]:
        return tuple(part for each in self._list_mixers() for part in each.shared)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        total = torch.zeros_like(x)
        for number, (mixer, weight) in enumerate(zip(self._list_mixers(), self.weights, strict=True)):
            branch = None if cache is None else cache.branch(str(number))
            out, trace = mixer(x, where, inputs, trace, branch)
            total = total + F.rms_norm(out, out.shape[-1:], weight.to(out.dtype), 1e-6)
        return self.to_out(total / len(self.mixers)), trace

    def _list_mixers(self) -> list[Mixer]:
        return [each for each in self.mixers if isinstance(each, Mixer)]
