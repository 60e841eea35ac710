"""Recurrences of a matrix state, computed in chunks: products within a chunk, one step of the state per chunk.

    linear rule   S_t = a_t S_(t-1) + k_t v_t^T
    delta rule    S_t = a_t S_(t-1) + b_t k_t (v_t - a_t S_(t-1)^T k_t)^T
    both          o_t = S_t^T q_t

Within a chunk, both add k_j u_j^T at token j, fading with every later token. The linear rule's u_j is v_j; the delta
rule's follow from one triangular system (the WY or UT transform of Yang et al., 2024,
https://arxiv.org/abs/2406.06484), which is linear in the state before the chunk.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad


def run_rule(
    q: Float[Tensor, "*b n d"],
    k: Float[Tensor, "*b n d"],
    v: Float[Tensor, "*c n e"],
    log_decay: Float[Tensor, "*c n"],
    beta: Float[Tensor, "*c n"] | None,
    state: Float[Tensor, "*c d e"] | None,
    documents: Int[Tensor, "b n"] | None,
    chunk: int,
) -> tuple[Float[Tensor, "*c n e"], Float[Tensor, "*c d e"]]:
    """Compute what each token reads from the state, and the state after the last one.

    Leading axes of queries and keys may be 1 where those of the values are not, as for heads that share them.

    Args:
        q: queries.
        k: keys.
        v: values.
        log_decay: logarithm of the fraction a of the state that each token keeps; 0 or less.
        beta: fraction b of the value at its key that each token replaces. None = linear rule.
        state: state before the first token. None = zeros.
        documents: document of each token; one begins with an empty state.
        chunk: most tokens of a chunk.
    """
    if state is None:
        state = v.new_zeros(*v.shape[:-2], k.shape[-1], v.shape[-1])
    n = v.shape[-2]
    if n == 1 and documents is None:
        return _step(q, k, v, log_decay, beta, state)
    # Not by `min`: of a row within one chunk, exported programs know that it is one.
    size = n if n <= chunk else chunk
    q, k, v = (_split(t, size) for t in (q, k, v))
    fading = _Fading.from_decays(_split(log_decay[..., None], size).squeeze(-1), documents)
    writes = (k * fading.to_end[..., None]).mT
    if beta is None:
        states, state = _carry_linear(state, (writes @ v).unbind(-3), fading)
    else:
        v, states, state = _carry_delta(
            state, writes, *_solve_delta(k, v, _split(beta[..., None], size), fading), fading
        )
    out = (q @ k.mT * fading.between) @ v + (q * fading.from_start[..., None]) @ states
    return out.flatten(-3, -2)[..., :n, :], state


def _solve_delta(
    k: Float[Tensor, "*b chunks i d"],
    v: Float[Tensor, "*c chunks i e"],
    beta: Float[Tensor, "*c chunks i 1"],
    fading: "_Fading",
) -> tuple[Float[Tensor, "*c chunks i e"], Float[Tensor, "*c chunks i d"]]:
    """Solve a chunk's triangular system for the parts of u without the state before the chunk, and times it."""
    keys = beta * k
    # The solver reads what is below the diagonal, and takes that for ones.
    system = keys @ k.mT * fading.between
    known = torch.cat((beta * v, keys * fading.from_start[..., None]), dim=-1)
    solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    values, keys = solved.split((v.shape[-1], k.shape[-1]), dim=-1)
    return values, keys


@dataclass(frozen=True, eq=False)
class _Fading:
    """Fractions that are left of writes and states; 0 between documents.

    Args:
        between: of the write of token j, at token i of the chunk; 0 for a later j.
        from_start: of the state before the chunk, at token i.
        to_end: of the write of token j, after the chunk.
        whole: of the state before the chunk, after it.
    """

    between: Float[Tensor, "*c chunks i j"]
    from_start: Float[Tensor, "*c chunks i"]
    to_end: Float[Tensor, "*c chunks j"]
    whole: Float[Tensor, "*c chunks"]

    @classmethod
    def from_decays(cls, log_decay: Float[Tensor, "*c chunks i"], documents: Int[Tensor, "b n"] | None) -> "_Fading":
        sums = log_decay.cumsum(dim=-1)
        size, last = sums.shape[-1], sums[..., -1:]
        later = torch.ones(size, size, dtype=torch.bool, device=sums.device).triu(1)
        # Masked before the exponential: that of a later token overflows, and its gradient would not be a number.
        between = (sums[..., :, None] - sums[..., None, :]).masked_fill(later, float("-inf")).exp()
        from_start, to_end, whole = sums.exp(), (last - sums).exp(), last.squeeze(-1).exp()
        if documents is None:
            return cls(between, from_start, to_end, whole)
        missing = -documents.shape[1] % size
        chunks = torch.cat((documents, documents[:, -1:].expand(-1, missing)), dim=1).unflatten(1, (-1, size))
        ends = chunks[..., -1]
        before = torch.cat((chunks[:, :1, 0], ends[:, :-1]), dim=1)
        middle = (1,) * (sums.dim() - 3)
        same = [
            (one == other).view(len(documents), *middle, *(one == other).shape[1:])
            for one, other in (
                (chunks[..., :, None], chunks[..., None, :]),
                (chunks, before[..., None]),
                (chunks, ends[..., None]),
                (ends, before),
            )
        ]
        return cls(*(t * s for t, s in zip((between, from_start, to_end, whole), same, strict=True)))


def _split(t: Float[Tensor, "*c n d"], size: int) -> Float[Tensor, "*c chunks i d"]:
    """Split tokens into chunks; the last is filled up with zeros, which leave the state alone."""
    missing = -t.shape[-2] % size
    # Contiguous once, for the products would each make a copy.
    return (pad(t, (0, 0, 0, missing)) if missing else t.contiguous()).unflatten(-2, (-1, size))


def _carry_linear(
    state: Float[Tensor, "*c d e"], added: tuple[Tensor, ...], fading: _Fading
) -> tuple[Float[Tensor, "*c chunks d e"], Float[Tensor, "*c d e"]]:
    """Return the states before each chunk and after the last, given what each chunk adds."""
    states = []
    for more, left in zip(added, fading.whole.unbind(-1), strict=True):
        states.append(state)
        state = left[..., None, None] * state + more
    return torch.stack(states, dim=-3), state


def _carry_delta(
    state: Float[Tensor, "*c d e"],
    writes: Float[Tensor, "*c chunks d j"],
    values: Float[Tensor, "*c chunks j e"],
    keys: Float[Tensor, "*c chunks j d"],
    fading: _Fading,
) -> tuple[Float[Tensor, "*c chunks j e"], Float[Tensor, "*c chunks d e"], Float[Tensor, "*c d e"]]:
    """Return the values that each chunk adds, the states before each chunk, and that after the last.

    The values added are the solved values, minus what the state before the chunk has at the solved keys.
    """
    states, added = [], []
    parts = zip(writes.unbind(-3), values.unbind(-3), keys.unbind(-3), fading.whole.unbind(-1), strict=True)
    for write, value, key, left in parts:
        states.append(state)
        added.append(value - key @ state)
        state = left[..., None, None] * state + write @ added[-1]
    return torch.stack(added, dim=-3), torch.stack(states, dim=-3), state


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one token, as decoding does."""
    state = log_decay.exp()[..., None] * state
    if beta is not None:
        v = beta[..., None] * (v - k @ state)
    state = state + k.mT * v
    return q @ state, state
