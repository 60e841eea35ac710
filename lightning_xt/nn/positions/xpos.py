import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.pairs import rotate_pairs
from lightning_xt.system.option_checks import check_option


class XPos(Position):
    """Rotate pairs of features as Rotary does, and let their products decay with distance, the fast pairs first.

    Sun et al., 2022. https://arxiv.org/abs/2212.10554
    Pair k of n has the decay z = (k / n + 0.4) / 1.4 per `scale_base` tokens: a query at i is multiplied by
    z^(i / scale_base), a key at j by z^(-j / scale_base). The paper counts positions from the middle of the sequence.
    Keys overflow at about 36,000 tokens, in float16 at about 4,500; a larger `scale_base` moves this further.
    In x-transformers: rotary_xpos, rotary_xpos_scale_base; centred by the length, which a cache changes.

    Args:
        scale_base: tokens after which pair k has decayed by its z; larger values decay slower.
        base: pair k rotates by base^(-k / n) per token.
    """

    looks_back = True

    def __init__(self, shape: AttentionShape, *, scale_base: float = 512.0, base: float = 10_000.0) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "position: XPos grows with the position of a later key, so it serves causal self-attention only; "
                "choose another"
            )
        check_option("position: XPos", "scale_base", scale_base, above=0)
        check_option("position: XPos", "base", base, above=0)
        check_option("position: XPos", "dim_head", shape.dim_head, least=2)
        self.frequencies: Tensor
        self.log_decays: Tensor
        pairs = shape.dim_head // 2
        part = torch.arange(pairs, dtype=torch.float64, device="cpu") / pairs
        self.register_constant("frequencies", (base**-part).tolist())
        self.register_constant("log_decays", (((part + 0.4) / 1.4).log() / scale_base).tolist())

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i d"]:
        return self._rotate(q, at, 1.0)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j d"]:
        return self._rotate(k, at, -1.0)

    def _rotate(self, x: Float[Tensor, "b h n d"], at: Int[Tensor, "#b n"], power: float) -> Float[Tensor, "b h n d"]:
        precise = at[:, None, :, None].to(torch.promote_types(x.dtype, torch.float32))
        return rotate_pairs(x, precise * self.frequencies, (power * precise * self.log_decays).exp())
