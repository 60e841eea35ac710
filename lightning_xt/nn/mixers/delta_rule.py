from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.attention.sizes import build_attention_shape
from lightning_xt.nn.mixers.base import Carry, Recurrence, carry_rule
from lightning_xt.nn.mixers.short_convolution import ShortConvolution
from lightning_xt.nn.mixers.step_decay import StepDecay
from lightning_xt.system.option_checks import check_option


class DeltaRule(Recurrence):
    """Memory of values by keys, in which a token replaces a part of the value at its key and reads that at its query.

    Queries, keys and values pass a short convolution and SiLU; queries and keys have length 1.

    Args:
        heads: number of heads, each with its own memory.
        dim_head: width of one head's queries and keys. None = the stream's width divided by heads.
        value_dim: width of one head's values. None = dim_head.
        conv_width: tokens that the short convolutions sum over, the token itself included; 1 = no convolution.
        max_beta: largest fraction of the value at its key that a token replaces. Up to 2, where a state can change its
            sign (Grazzi et al., 2024, https://arxiv.org/abs/2411.12537).
        chunk: tokens computed at once; changes speed, not results. None = 32 on a CPU, 64 elsewhere.
    """

    gate_maps = ("to_rates",)

    @property
    @abstractmethod
    def gated(self) -> bool:
        """True if states decay, and each output has a gate."""

    def __init__(
        self,
        shape: LayerShape,
        *,
        heads: int = 8,
        dim_head: int | None = None,
        value_dim: int | None = None,
        conv_width: int = 4,
        max_beta: float = 1.0,
        chunk: int | None = None,
    ) -> None:
        super().__init__(shape)
        where = f"attention: {type(self).__name__}"
        for name, value in (("conv_width", conv_width), ("chunk", chunk)):
            check_option(where, name, value, least=1)
        check_option(where, "max_beta", max_beta, above=0, most=2)
        head = build_attention_shape(shape, heads, None, dim_head, value_dim)
        self.heads, self.max_beta, self.chunk = heads, max_beta, chunk
        keys, values = heads * head.dim_head, heads * head.value_dim
        self.sizes = (keys, keys, values, *((values,) if self.gated else ()))
        # Maps of the same input are one product. Optimizers of matrices split them.
        self.to_inputs = nn.Linear(shape.dim, sum(self.sizes), bias=False)
        self.stacked_rows = {"to_inputs": self.sizes}
        # How much a token replaces and how much decays, for each head.
        self.to_rates = nn.Linear(shape.dim, (2 if self.gated else 1) * heads, bias=False)
        self.convolution = ShortConvolution(2 * keys + values, conv_width)
        self.decay = StepDecay(heads) if self.gated else None
        self.gain = nn.Parameter(torch.ones(head.value_dim))
        self.to_out = nn.Linear(values, shape.dim, bias=False)

    def mix(self, x: Float[Tensor, "b n D"], carry: Carry) -> Float[Tensor, "b n D"]:
        convolved, others = self.sizes[:3], self.sizes[3:]
        qkv, *gate = self.to_inputs(x).split((sum(convolved), *others), dim=-1)
        q, k, v = F.silu(self.convolution(qkv, carry)).split(convolved, dim=-1)
        replaced, *decayed = self.to_rates(x).split(self.heads, dim=-1)
        beta = carry.mask(self.max_beta * replaced.to(v.dtype).sigmoid())
        log_decay = torch.zeros_like(beta) if self.decay is None else carry.mask(self.decay(decayed[0])[1])
        q, k, v = (t.unflatten(-1, (self.heads, 1, -1)).permute(0, 2, 3, 1, 4) for t in (q, k, v))
        log_decay, beta = (t.mT.unsqueeze(2) for t in (log_decay, beta))
        out = carry_rule(_normalize(q), _normalize(k), v, log_decay, beta, carry, self.chunk)
        out = F.rms_norm(out, out.shape[-1:], self.gain.to(out.dtype), 1e-6).squeeze(2).transpose(1, 2).flatten(2)
        if self.gated:
            out = out * F.silu(gate[0])
        return self.to_out(out.to(x.dtype))


def _normalize(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """Scale vectors to length 1; a vector of zeros stays, with finite gradients."""
    return x * (x.square().sum(dim=-1, keepdim=True) + 1e-6).rsqrt()
