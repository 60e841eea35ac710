"""Attention, assembled from parts: project, place, score, weigh, gather."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.fixed_context import FixedContext
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.attention.kernels.backends import Backend, attend, choose_backend, supported_backends
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.normalizers.base import NormalizerFactory
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.output_mods.base import OutputModFactory
from lightning_xt.nn.positions.base import PositionFactory
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.projections.base import ProjectionFactory
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.score_mods.base import ScoreMod, ScoreModFactory
from lightning_xt.nn.scores.base import ScoreFactory
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.value_mods.base import ValueMod, ValueModFactory
from lightning_xt.system.option_checks import check_option, check_slots


class Attention(Mixer):
    """Gather values from the visible tokens of each token, weighed by the fit of its query to their keys.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    Persistent keys: Sukhbaatar et al., 2019, https://arxiv.org/abs/1907.01470. Windows: Beltagy et al., 2020,
    https://arxiv.org/abs/2004.05150. Norms on queries and keys: Henry et al., 2020, https://arxiv.org/abs/2010.04245.
    With a `context_dim` in its sizes it is cross-attention: keys and values come from a context.

    Args:
        heads: number of query heads.
        kv_heads: number of key/value heads, each shared by heads / kv_heads query heads. None = as many as heads.
        dim_head: width of one head. None = the stream's width divided by heads.
        projection: makes queries, keys and values, and decides their form in the cache.
        qk_norm: norm of queries and of keys, per head. None = no norm.
        value_mods: change the values, in order.
        position: gives scores the positions of tokens. None = no positions.
        score: scores the fit of a query to a key.
        score_mods: change the scores, in order.
        normalizer: turns scores into weights.
        output_mods: change the gathered values of each head, in order.
        window: a token sees only tokens fewer than this many positions away, itself included. None = any distance.
        memory: number of learned keys and values that every token sees besides the others.
        dropout: fraction of the weights dropped in training.
        backend: implementation; auto chooses the fastest one that all parts run on.
    """

    @check_slots
    def __init__(
        self,
        shape: LayerShape,
        *,
        heads: int = 8,
        kv_heads: int | None = None,
        dim_head: int | None = None,
        projection: ProjectionFactory = MultiHead,
        qk_norm: NormFactory | None = None,
        value_mods: Sequence[ValueModFactory] = (),
        position: PositionFactory | None = Rotary,
        score: ScoreFactory = DotProduct,
        score_mods: Sequence[ScoreModFactory] = (),
        normalizer: NormalizerFactory = Softmax,
        output_mods: Sequence[OutputModFactory] = (),
        window: int | None = None,
        memory: int = 0,
        dropout: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.shape = shape = build_attention_shape(shape, heads, kv_heads, dim_head)
        _check_sizes(shape, window, memory, dropout)
        self.window, self.dropout, self.backend = window, dropout, backend

        self.projection = projection(shape)
        head = replace(shape, dim=shape.dim_head)
        self.q_norm = None if qk_norm is None else qk_norm(head)
        self.k_norm = None if qk_norm is None else qk_norm(head)
        self.value_mods = nn.ModuleList(factory(shape) for factory in value_mods)
        rotated = replace(shape, dim_head=self.projection.rotated_dim)
        self.position = None if position is None else position(rotated)
        self.score = score(shape)
        self.score_mods = nn.ModuleList(factory(shape) for factory in score_mods)
        self.normalizer = normalizer(shape)
        self.output_mods = nn.ModuleList(factory(shape) for factory in output_mods)
        self.memory = nn.Parameter(torch.randn(2, shape.kv_heads, memory, shape.dim_head)) if memory else None
        self.to_out = nn.Linear(shape.heads * shape.dim_head, shape.dim, bias=False)
        if not self.projection.per_head:
            self._check_shared_keys()
        parts = [part for part in (self.score, self.position, *self.score_mods, self.normalizer) if part is not None]
        self.supported_backends = supported_backends(backend, parts, dropout)

    @property
    def value_shape(self) -> tuple[int, int] | None:
        return self.projection.value_shape

    def check_first_values(self, shape: tuple[int, int]) -> None:
        for mod in cast(Iterable[ValueMod], self.value_mods):
            mod.check_first_values(shape)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        # project
        if self.shape.context_dim is None:
            q, k, v = self.projection.project(x)
            k, v, where, trace = self._make_keys_values(k, v, x, where, inputs, trace, cache)
        else:
            q = self.projection.project_queries(x)
            k, v, where, trace = self._make_context_keys_values(len(x), where, inputs, trace, cache)
        if self.q_norm is not None:
            # Norms may return a wider type under autocast, and kernels need queries, keys and values of one type.
            q = self.q_norm(q, inputs).to(q.dtype)
        q = _group_queries(q, len(k))
        # place
        prepared = None
        if self.position is not None:
            q = self.projection.rotate(q, partial(self.position.rotate_queries, at=where.queries))
            prepared = self.position.prepare(x, where, self.window, cache)
        if self.memory is not None:
            k, v, where = _prepend_memory(self.memory, k, v, where)
        # score, weigh, gather
        dropout = self.dropout if self.training else 0.0
        mods = cast(Iterable[ScoreMod], self.score_mods)
        scoring = Scoring(
            self.score, self.position, prepared, mods, self.normalizer, where, self.projection.scale, dropout
        )
        backend = choose_backend(self.backend, self.supported_backends, self.position, where, x.device.type)
        out = self.projection.attend(q, k, v, partial(attend, backend, scoring=scoring))
        if len(out) < len(x):
            out = _ungroup_queries(out, len(x))
        for mod in self.output_mods:
            out = mod(out, x)
        return self.to_out(out.transpose(1, 2).flatten(2)), trace

    def _check_shared_keys(self) -> None:
        """Refuse parts that need keys and values per head with a projection that has none."""
        clashing = {
            "qk_norm": self.q_norm is not None,
            "value_mods": len(self.value_mods) > 0,
            "memory": self.memory is not None,
            f"score {type(self.score).__name__}": not self.score.bilinear,
            f"position {type(self.position).__name__}": self.position is not None and self.position.paired,
        }
        found = [name for name, clashes in clashing.items() if clashes]
        if found:
            raise ValueError(
                f"attention: projection {type(self.projection).__name__} has no keys and values per head, "
                f"so it cannot be combined with {' and '.join(found)}; omit one of them"
            )

    def _make_keys_values(
        self, k: Tensor, v: Tensor, x: Tensor, where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Tensor, Tensor, Where, Trace]:
        """Make keys and values of the row's own tokens, the cached ones included."""
        if where.visible_prefix is not None and self.position is not None and self.position.looks_back:
            raise ValueError(
                f"position: {type(self.position).__name__} looks back only, but with Inputs(visible_prefix=...) the "
                "first tokens see later ones; choose another position, or omit visible_prefix"
            )
        earlier, trace = trace.values, trace.add_values(v)
        k, v = self._modify_keys_values(k, v, x, where.queries, inputs, earlier)
        if cache is None:
            return k, v, where.limit_window(self.window), trace
        k, v = self.projection.append_to_cache(k, v, cache, self.window)
        return k, v, where.switch_to_cache(cache.get_key_positions(self.window), self.window), trace

    def _make_context_keys_values(
        self, rows: int, where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Tensor, Tensor, Where, Trace]:
        """Make keys and values of the context, only once while decoding."""
        if cache is not None and (kept := cache.fixed.get("context")) is not None:
            return kept.keys, kept.values, _look_at_context(where, kept, rows // len(kept.keys)), trace
        context, mask = inputs.require("context", self), inputs.context_mask
        where = where.switch_to_context(context.shape[1], mask)
        k, v = self.projection.project_keys_values(context)
        earlier, trace = trace.context_values, trace.add_context_values(v)
        k, v = self._modify_keys_values(k, v, context, where.keys, inputs, earlier)
        if cache is not None:
            cache.fixed["context"] = FixedContext(k, v, mask)
        return k, v, where, trace

    def _modify_keys_values(
        self, k: Tensor, v: Tensor, source: Tensor, at: Tensor, inputs: Inputs, earlier: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Change keys and values into their cached form."""
        for mod in self.value_mods:
            v = mod(v, source, earlier)
        if self.k_norm is not None:
            k = self.k_norm(k, inputs).to(k.dtype)
        if self.position is not None:
            k = self.projection.rotate(k, partial(self.position.rotate_keys, at=at))
        return k, v


def build_attention_shape(shape: LayerShape, heads: int, kv_heads: int | None, dim_head: int | None) -> AttentionShape:
    """Build sizes of attention, with defaults filled in; ValueError if dim, heads and kv_heads do not divide."""
    check_option("attention", "heads", heads, least=1)
    width = max(1, shape.dim // heads) if dim_head is None else dim_head
    kv_heads = heads if kv_heads is None else kv_heads
    found = AttentionShape(**vars(shape), heads=heads, kv_heads=kv_heads, dim_head=width)
    if dim_head is None and shape.dim % heads:
        raise ValueError(
            f"attention: dim ({shape.dim}) must be a multiple of heads ({heads}), or dim_head must be given"
        )
    return found


def _group_queries(q: Tensor, contexts: int) -> Tensor:
    """Group queries (b h n d) of g rows with the same context into queries (c h g*n d) of one row a context."""
    rows = len(q) // contexts
    if rows == 1:
        return q
    return q.view(contexts, rows, *q.shape[1:]).transpose(1, 2).flatten(2, 3)


def _ungroup_queries(out: Tensor, rows: int) -> Tensor:
    """Return what grouped queries (c h g*n e) gather to their rows (b h n e)."""
    return out.unflatten(2, (rows // len(out), -1)).transpose(1, 2).flatten(0, 1)


def _look_at_context(where: Where, context: FixedContext, sharing: int) -> Where:
    """Replace the keys by those of a context, each row of which `sharing` rows share."""
    across = where.switch_to_context(context.keys.shape[-2], None)
    return replace(across.group_rows(sharing) if sharing > 1 else across, valid=context.mask)


def _prepend_memory(memory: Tensor, k: Tensor, v: Tensor, where: Where) -> tuple[Tensor, Tensor, Where]:
    """Prepend persistent keys and values (2 g m d)."""
    own_k, own_v = memory.to(k.dtype).unsqueeze(1).expand(-1, k.shape[0], -1, -1, -1)
    return torch.cat((own_k, k), dim=-2), torch.cat((own_v, v), dim=-2), where.add_memory(memory.shape[-2])


def _check_sizes(shape: AttentionShape, window: int | None, memory: int, dropout: float) -> None:
    check_option("attention", "window", window, least=1)
    if window is not None and shape.context_dim is not None:
        raise ValueError(f"attention: window is {window}, but cross-attention has no distances; set it to null")
    check_option("attention", "memory", memory, least=0)
    check_option("attention", "dropout", dropout, least=0, below=1)
