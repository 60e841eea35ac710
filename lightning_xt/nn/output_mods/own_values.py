"""The part of gathered values along the value of the token itself."""

import torch
from jaxtyping import Float
from torch import Tensor


def project_on_own(out: Float[Tensor, "b h i e"], own: Float[Tensor, "b g i e"]) -> Float[Tensor, "b h i e"]:
    """Project what each head gathered for a token on the value of the token in that head, in float32 or better."""
    precise = torch.promote_types(out.dtype, torch.float32)
    values = own.to(precise).repeat_interleave(out.shape[1] // own.shape[1], dim=1)
    along = (out.to(precise) * values).sum(dim=-1, keepdim=True)
    return along / values.square().sum(dim=-1, keepdim=True).clamp(min=1e-12) * values
