"""Attention, assembled from parts: project, place, score, weigh, gather."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.fixed_context import FixedContext
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import AttentionMap, SharedKeys, Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.attention.kernels.backends import Backend, attend, choose_backend, supported_backends
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.attention.part_checks import (
    check_bias,
    check_cross_attention,
    check_own_values,
    check_projection,
    check_removals,
    check_scores,
    check_signs,
    find_looking_back,
    refuse_visible_prefix,
)
from lightning_xt.nn.attention.persistent_keys import make_memory, prepend_given, prepend_memory
from lightning_xt.nn.attention.shared_contexts import group_queries, look_at_context, ungroup_queries
from lightning_xt.nn.attention.shared_keys import read_shared_keys
from lightning_xt.nn.attention.sizes import build_attention_shape, check_sizes
from lightning_xt.nn.attention.z_loss import compute_score_z_loss
from lightning_xt.nn.normalizers.base import NormalizerFactory
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.output_mods.base import OutputMod, OutputModFactory
from lightning_xt.nn.output_projections.base import OutputProjectionFactory
from lightning_xt.nn.positions.base import PositionFactory
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.projections.base import ProjectionFactory
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.score_mods.base import Scored, ScoreMod, ScoreModFactory
from lightning_xt.nn.scores.base import ScoreFactory
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.value_mods.base import ValueMod, ValueModFactory
from lightning_xt.system.option_checks import check_slots


class Attention(Mixer):
    """Gather values from the visible tokens of each token, weighed by the fit of its query to their keys.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    Persistent keys: Sukhbaatar et al., 2019, https://arxiv.org/abs/1907.01470. Windows: Beltagy et al., 2020,
    https://arxiv.org/abs/2004.05150. Norms on queries and keys: Henry et al., 2020, https://arxiv.org/abs/2010.04245.
    With a `context_dim` in its sizes it is cross-attention: keys and values come from a context.
    In x-transformers: heads, attn_dim_head, attn_kv_heads, attn_one_kv_head, attn_num_mem_kv, attn_max_attend_past,
    attn_dropout, attn_flash.

    Args:
        heads: number of query heads.
        kv_heads: number of key/value heads, each shared by heads / kv_heads query heads. None = as many as heads.
        dim_head: width of one head. None = the stream's width divided by heads.
        value_dim: width of one head of values. None = dim_head.
        projection: makes queries, keys and values, and decides their form in the cache.
        qk_norm: norm of queries and of keys, per head. None = no norm.
        k_norm: norm of keys, per head. None = that of qk_norm.
        value_mods: change the values, in order.
        position: gives scores the positions of tokens. None = no positions.
        score: scores the fit of a query to a key.
        score_mods: change the scores, in order.
        normalizer: turns scores into weights.
        output_mods: change the gathered values of each head, in order.
        output_projection: joins the heads. None = one linear map.
        window: a token sees only tokens fewer than this many positions away, itself included. None = any distance.
        memory: number of learned keys and values that every token sees besides the others.
        dropout: fraction of the weights dropped in training.
        z_loss: weight, in the training loss, of the squared logarithm of the sum of exponentiated scores, a mean over
            queries, heads and calls of attention; it keeps scores small. Above 0 training runs in plain products.
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
        value_dim: int | None = None,
        projection: ProjectionFactory = MultiHead,
        qk_norm: NormFactory | None = None,
        k_norm: NormFactory | None = None,
        value_mods: Sequence[ValueModFactory] = (),
        position: PositionFactory | None = Rotary,
        score: ScoreFactory = DotProduct,
        score_mods: Sequence[ScoreModFactory] = (),
        normalizer: NormalizerFactory = Softmax,
        output_mods: Sequence[OutputModFactory] = (),
        output_projection: OutputProjectionFactory | None = None,
        window: int | None = None,
        memory: int = 0,
        dropout: float = 0.0,
        z_loss: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.shape = shape = build_attention_shape(shape, heads, kv_heads, dim_head, value_dim)
        check_sizes(shape, window, memory, dropout, z_loss)
        self.window, self.dropout, self.z_loss, self.backend = window, dropout, z_loss, backend

        self.projection = projection(shape)
        head = replace(shape, dim=shape.dim_head)
        self.q_norm = None if qk_norm is None else qk_norm(head)
        k_norm = qk_norm if k_norm is None else k_norm
        self.k_norm = None if k_norm is None or self.projection.reads_shared_keys else k_norm(head)
        self.value_mods = nn.ModuleList(factory(shape) for factory in value_mods)
        rotated = replace(shape, dim_head=self.projection.rotated_dim)
        self.position = None if position is None else position(rotated)
        self.score = score(shape)
        self.score_mods = nn.ModuleList(factory(shape) for factory in score_mods)
        self.normalizer = normalizer(shape)
        self.output_mods = nn.ModuleList(factory(shape) for factory in output_mods)
        self.memory = make_memory(shape, memory) if memory else None
        self.output_projection = None if output_projection is None else output_projection(shape)
        if output_projection is None:
            self.to_out = nn.Linear(shape.heads * shape.value_dim, shape.dim, bias=False)
        self._check_parts()
        parts = [part for part in (self.score, self.position, *self.score_mods, self.normalizer) if part is not None]
        self.supported_backends = supported_backends(backend, parts, dropout)

    @property
    def value_shape(self) -> tuple[int, int] | None:
        return self.projection.value_shape

    def check_first_values(self, shape: tuple[int, int]) -> None:
        for mod in cast(Iterable[ValueMod], self.value_mods):
            mod.check_first_values(shape)

    @property
    def shared(self) -> tuple[tuple[str, str], ...]:
        mods = [type(mod).__name__ for mod in cast(Iterable[ScoreMod], self.score_mods) if mod.records_scores]
        memory = 0 if self.memory is None else self.memory.shape[-2]
        scored = f"heads {self.shape.heads}, window {self.window or 'null'} and memory {memory}"
        placed = () if self.position is None else self.position.shared
        return (*placed, *((f"score_mods: {name}", scored) for name in mods))

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        # project
        if self.projection.reads_shared_keys:
            q, own = self.projection.project_queries(x), None
            k, v, where = read_shared_keys(trace, self.window)
        elif self.shape.context_dim is None:
            q, k, v = self.projection.project(x)
            k, v = self.projection.shift(k, v, where, cache)
            k, own, trace = self._make_keys_values(k, v, x, where, inputs, trace)
            k, v, where = self._append_to_cache(k, own, where, cache)
            if self.projection.shares_keys:
                trace = trace.share_keys(SharedKeys(k, v, where, self.window))
        else:
            q, own = self.projection.project_queries(x), None
            k, v, where, trace = self._make_context_keys_values(x.shape[0], where, inputs, trace, cache)
        if self.q_norm is not None:
            # Norms may return a wider type under autocast, and kernels need queries, keys and values of one type.
            q = self.q_norm(q, inputs).to(q.dtype)
        q = group_queries(q, k.shape[0])
        # place
        prepared = None
        if self.position is not None:
            trace, placed = self.position.share(trace), self.position.place(where)
            q = self.projection.rotate(q, partial(self.position.rotate_queries, at=placed.queries))
            prepared = self.position.prepare(x, placed, self.window, cache, trace)
        keys, values, where = self._prepend_persistent(k, v, where, inputs)
        # score, weigh, gather
        q = self.score.scale_queries(q, where)
        call = Scored(x, q, keys, where, trace, self.window, cache, self.score.choose_scale(self.projection.scale))
        scoring = self._prepare_scoring(call, prepared, inputs)
        backend = choose_backend(self.backend, self.supported_backends, scoring, x.device.type)
        out = self.projection.attend(q, keys, values, partial(attend, backend, scoring=scoring))
        for value_mod in reversed(cast(Sequence[ValueMod], self.value_mods)):
            out = value_mod.restore(out)
        if out.shape[0] < x.shape[0]:
            out = ungroup_queries(out, x.shape[0])
        for mod in self.output_mods:
            out = mod(out, x, own)
        joined = out.transpose(1, 2).flatten(2)
        out = self.to_out(joined) if self.output_projection is None else self.output_projection(joined, x, inputs)
        return out, self._record(trace, scoring, k, v, inputs)

    def _check_parts(self) -> None:
        """Refuse parts that do not fit together."""
        value_mods = list(cast(Iterable[ValueMod], self.value_mods))
        score_mods = list(cast(Iterable[ScoreMod], self.score_mods))
        output_mods = list(cast(Iterable[OutputMod], self.output_mods))
        memory = self.memory is not None
        check_cross_attention(self.shape, {"value_mods": value_mods, "score_mods": score_mods}, output_mods)
        check_signs(value_mods, self.projection, self.normalizer, memory, self.position, score_mods)
        self.looking_back = find_looking_back(self.position, self.normalizer, score_mods)
        norms = {"qk_norm": self.q_norm, "k_norm": None if self.q_norm is not None else self.k_norm}
        check_projection(self.projection, norms, memory, self.score, self.position, value_mods, score_mods, output_mods)
        check_scores(self.score, self.normalizer)
        check_own_values(self.projection, value_mods, output_mods)
        check_removals(output_mods)

    def _make_keys_values(
        self, k: Tensor, v: Tensor, x: Tensor, where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Tensor, Tensor, Trace]:
        """Make keys and values of the new tokens."""
        if where.visible_prefix is not None and self.looking_back is not None:
            refuse_visible_prefix(*self.looking_back)
        earlier, trace = trace.values, trace.add_values(v)
        return *self._modify_keys_values(k, v, x, where, inputs, earlier), trace

    def _append_to_cache(
        self, k: Tensor, v: Tensor, where: Where, cache: CallCache | None
    ) -> tuple[Tensor, Tensor, Where]:
        """Append keys and values to the cache, and return all of them."""
        if cache is None:
            return k, v, where.limit_window(self.window)
        k, v = self.projection.append_to_cache(k, v, cache, self.window)
        return k, v, where.switch_to_cache(cache.get_key_positions(self.window), self.window)

    def _make_context_keys_values(
        self, rows: int, where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Tensor, Tensor, Where, Trace]:
        """Make keys and values of the context, only once while decoding."""
        if cache is not None and (kept := cache.fixed.get("context")) is not None:
            return kept.keys, kept.values, look_at_context(where, kept, rows // kept.keys.shape[0]), trace
        context, mask = inputs.require("context", self), inputs.context_mask
        where = where.switch_to_context(context.shape[1], mask)
        k, v = self.projection.shift(*self.projection.project_keys_values(context), where, None)
        earlier, trace = trace.context_values, trace.add_context_values(v)
        k, v = self._modify_keys_values(k, v, context, where, inputs, earlier)
        if cache is not None:
            cache.fixed["context"] = FixedContext(k, v, mask)
        return k, v, where, trace

    def _modify_keys_values(
        self, k: Tensor, v: Tensor, source: Tensor, where: Where, inputs: Inputs, earlier: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Change keys and values into their cached form."""
        for mod in self.value_mods:
            v = mod(v, source, earlier, inputs)
        if self.k_norm is not None:
            k = self.k_norm(k, inputs).to(k.dtype)
        if self.position is not None:
            k = self.projection.rotate(k, partial(self.position.rotate_keys, at=self.position.place(where).keys))
        return k, v

    def _prepend_persistent(self, k: Tensor, v: Tensor, where: Where, inputs: Inputs) -> tuple[Tensor, Tensor, Where]:
        """Prepend learned keys and values, and those of another model."""
        if self.shape.context_dim is None and (given := inputs.keys_values) is not None:
            k, v, where = prepend_given(self.shape, self.projection.per_head, self.value_mods, given, k, v, where)
        if self.memory is None:
            return k, v, where
        return prepend_memory(self.memory, self.shape, self.position, k, v, where)

    def _prepare_scoring(self, call: Scored, prepared: Any, inputs: Inputs) -> Scoring:
        mods = cast(Sequence[ScoreMod], self.score_mods)
        own_bias = None if self.shape.context_dim is not None else inputs.bias
        check_bias(own_bias, call.x.shape[0], self.shape.heads)
        wanted = call.trace.keeps_maps or self._adds_z_loss or any(mod.records_scores for mod in mods)
        return Scoring(
            self.score,
            self.position,
            prepared,
            mods,
            self.normalizer,
            call.where,
            call.scale,
            self.dropout if self.training else 0.0,
            mods_prepared=[mod.prepare(call) for mod in mods],
            own_bias=own_bias,
            record=[] if wanted else None,
        )

    @property
    def _adds_z_loss(self) -> bool:
        return self.training and self.z_loss > 0

    def _record(self, trace: Trace, scoring: Scoring, k: Tensor, v: Tensor, inputs: Inputs) -> Trace:
        """Add what this call leaves for later layers, the loss and the caller."""
        if scoring.record is None:
            return trace
        made, mask, across = scoring.record[0], scoring.where.dense(), self.shape.context_dim is not None
        kind: Literal["attention", "cross_attention"] = "cross_attention" if across else "attention"
        if any(mod.records_scores for mod in scoring.score_mods):
            trace = trace.add_context_scores(made.unbiased) if across else trace.add_scores(made.unbiased)
        if self._adds_z_loss:
            counted = inputs.scored if across else inputs.find_counted(scoring.where.valid)
            value = compute_score_z_loss(made.scores, mask, counted)
            trace = trace.add_loss("attention_z_loss", value, self.z_loss, group=f"z-loss of {kind}")
        if not trace.keeps_maps:
            return trace
        return trace.add_map(AttentionMap(kind, self.shape.layer, k, v, *made[1:], mask, scoring.where.memory))
