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


class Mamba2(Recurrence):
    """Add each token to a state that decays by a fraction the token chooses, and read from it (state space duality).

    Dao and Gu, 2024. https://arxiv.org/abs/2405.21060
    S_t = a_t S_(t-1) + d_t B_t x_t^T and y_t = C_t^T S_t + D x_t, with the step d_t = softplus(w u_t + bias) and the
    decay a_t = exp(-A d_t) of each head. x, B and C pass a short convolution and SiLU; y is gated, then normed.
    The paper's heads are together twice as wide as the stream, for its layers have no feedforward.

    Args:
        heads: number of heads, each with its own decay.
        dim_head: width of one head's x. None = the stream's width divided by heads.
        state_dim: width of B and C, by which a head's x is written and read.
        groups: number of pairs of B and C, each shared by heads / groups heads.
        conv_width: tokens that the short convolutions sum over, the token itself included; 1 = no convolution.
        chunk: tokens computed at once; changes speed, not results. None = 32 on a CPU, 64 elsewhere.
    """

    gate_maps = ("to_steps",)

    def __init__(
        self,
        shape: LayerShape,
        *,
        heads: int = 8,
        dim_head: int | None = None,
        state_dim: int = 128,
        groups: int = 1,
        conv_width: int = 4,
        chunk: int | None = None,
    ) -> None:
        super().__init__(shape)
        for name, value in (("state_dim", state_dim), ("groups", groups), ("conv_width", conv_width), ("chunk", chunk)):
            check_option("attention: Mamba2", name, value, least=1)
        inner = heads * build_attention_shape(shape, heads, None, dim_head, None).dim_head
        if heads % groups:
            raise ValueError(f"attention: Mamba2 has heads {heads}, which must be a multiple of groups ({groups})")
        self.heads, self.groups, self.chunk = heads, groups, chunk
        self.sizes = (inner, groups * state_dim, groups * state_dim, inner)
        # Maps of the same input are one product. Optimizers of matrices split them.
        self.to_inputs = nn.Linear(shape.dim, sum(self.sizes), bias=False)
        self.stacked_rows = {"to_inputs": self.sizes}
        self.to_steps = nn.Linear(shape.dim, heads, bias=False)
        self.convolution = ShortConvolution(sum(self.sizes[:3]), conv_width)
        self.convolution_bias = nn.Parameter(torch.zeros(sum(self.sizes[:3])))
        self.decay = StepDecay(heads)
        self.skip = nn.Parameter(torch.ones(heads))
        self.gain = nn.Parameter(torch.ones(inner))
        self.to_out = nn.Linear(inner, shape.dim, bias=False)

    def mix(self, x: Float[Tensor, "b n D"], carry: Carry) -> Float[Tensor, "b n D"]:
        convolved, others = self.sizes[:3], self.sizes[3:]
        together, gate = self.to_inputs(x).split((sum(convolved), *others), dim=-1)
        together = self.convolution(together, carry) + self.convolution_bias
        own, written, read = F.silu(together).split(convolved, dim=-1)
        own = own.unflatten(-1, (self.groups, self.heads // self.groups, -1)).permute(0, 2, 3, 1, 4)
        written, read = (t.unflatten(-1, (self.groups, 1, -1)).permute(0, 2, 3, 1, 4) for t in (written, read))
        steps = self.decay(self.to_steps(x))
        sizes, log_decay = (carry.mask(t).mT.unflatten(1, (self.groups, -1)).to(own.dtype) for t in steps)
        out = carry_rule(read, written, sizes[..., None] * own, log_decay, None, carry, self.chunk)
        out = out + self.skip.view(self.groups, -1, 1, 1) * own
        out = out.permute(0, 3, 1, 2, 4).flatten(2) * F.silu(gate)
        return self.to_out(F.rms_norm(out, out.shape[-1:], self.gain.to(out.dtype), 1e-6).to(x.dtype))
