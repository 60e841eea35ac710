"""Decoders and encoders, from a wrapper of x-transformers and its layers."""

from typing import Any

from lightning_xt.commands.x_transformers.attention_parts import build_attention, build_cross_attention
from lightning_xt.commands.x_transformers.expression import Call
from lightning_xt.commands.x_transformers.feedforward_parts import build_feedforward
from lightning_xt.commands.x_transformers.given_options import Given, Remarks, make_class
from lightning_xt.commands.x_transformers.layout_parts import Order, choose_order
from lightning_xt.commands.x_transformers.norm_parts import choose_norm
from lightning_xt.commands.x_transformers.option_names import split_layers
from lightning_xt.commands.x_transformers.per_layer import PartOptions, build_by_layer
from lightning_xt.commands.x_transformers.stream_parts import (
    choose_links,
    choose_placement,
    choose_residual,
    choose_scale,
    choose_shift,
)
from lightning_xt.commands.x_transformers.wrapper_parts import (
    choose_dropout,
    choose_embedding_dim,
    choose_embeddings,
    choose_passes,
    choose_segments,
    choose_zero_outputs,
)
from lightning_xt.exchange.x_transformers.stack_options import StackOptions


class NetworkBuilder:
    """Builder of the options of a decoder or an encoder.

    Args:
        wrapper: options of the wrapper.
        inner: the layers.
        prefix: prefix of the options, as typed.
        remarks: where remarks are added.
    """

    def __init__(self, wrapper: Given, inner: Call, prefix: str, remarks: Remarks) -> None:
        self._wrapper, self._inner, self._prefix, self._remarks = wrapper, inner, prefix, remarks
        self._parts = split_layers(inner.options)
        self._layers = Given("AttentionLayers", self._parts[""], remarks, prefix, inner.places)
        self.causal = self._find_direction()
        self.context_dropout: float = 0.0
        self._deep = False
        self._sublayers: dict[str, list[dict[str, Any]]] = {}

    def build(self, *, paired: bool = False) -> dict[str, Any]:
        """Return the options, without the head; `paired` is True for a decoder that attends to an encoder."""
        layers, wrapper = self._layers, self._wrapper
        if paired:
            self.context_dropout = float(layers.get("cross_attn_tokens_dropout"))
        elif layers.has("cross_attn_tokens_dropout"):
            layers.miss("cross_attn_tokens_dropout", "it is context_dropout of a Seq2Seq, which this is not")
        crossing = self._crosses()
        only = {"only_cross": True} if self._inner.name == "CrossAttender" else {}
        order = choose_order(layers, crossing=crossing, **only)
        attention = self._select("attn_", order.letters.count("a"))
        self._deep = attention.count > 1
        feedforward = self._select("ff_", order.letters.count("f"))
        self._sublayers |= {"a": attention.complete(), "f": feedforward.complete()}
        network = self._build_stream(order, attention.select(0), feedforward.select(0), headed=not paired)
        dim, embedded = layers.get("dim"), wrapper.get("ff_deep_embed")
        network["attention"] = build_by_layer(attention, order, "Cycle", self._build_attention)
        if wrapper.get("ff_deep_embed") and order.layout != "Standard":
            wrapper.differ("ff_deep_embed", "DeepEmbed; each feedforward has a table; each call of one there")
        network["feedforward"] = build_by_layer(
            feedforward, order, "FeedForwardCycle", lambda own: build_feedforward(own, dim, deep_embed=embedded)
        )
        if crossing:
            network |= self._build_crossing(attention, order, paired=paired)
        elif self.causal:
            network["cross_attention"] = None
        if not crossing:
            self._miss_crossing()
        layers.get("verbose")
        layers.miss_unread()
        return network

    @property
    def given(self) -> StackOptions:
        """The options as given, complete with the defaults there; after `build`."""
        return StackOptions(self._wrapper.complete(), self._layers.complete(), self._sublayers)

    def _build_attention(self, own: Given) -> Any:
        return make_class("Attention", **build_attention(self._layers, own, causal=self.causal, deep=self._deep))

    def _build_stream(self, order: Order, attention: Given, feedforward: Given, *, headed: bool) -> dict[str, Any]:
        """Return the options around the sublayers."""
        layers, wrapper = self._layers, self._wrapper
        segments = {"segments": choose_segments(wrapper)} if self.causal else {}
        return segments | {
            "dim": layers.get("dim"),
            "depth": order.depth,
            "norm": choose_norm(layers),
            "placement": choose_placement(layers),
            "residual": choose_residual(layers, causal=self.causal),
            "shift": choose_shift(layers, order, causal=self.causal),
            "scale": choose_scale(layers),
            "links": choose_links(layers),
            "layout": order.layout,
            "passes": choose_passes(wrapper),
            "embeddings": choose_embeddings(wrapper, layers),
            "embedding_dim": choose_embedding_dim(wrapper, layers, headed=headed),
            "dropout": choose_dropout(wrapper, attention, feedforward),
            "zero_outputs": choose_zero_outputs(layers, attention, feedforward),
        }

    def _crosses(self) -> bool:
        """Return True if there is cross-attention."""
        crossing = self._layers.get("cross_attend") or self._inner.name == "CrossAttender"
        if crossing and not self.causal:
            self._layers.miss("cross_attend", "an Encoder has no cross-attention; a Decoder has")
        return crossing and self.causal

    def _find_direction(self) -> bool:
        name, layers = self._inner.name, self._layers
        if name == "AttentionLayers":
            return bool(layers.get("causal"))
        if "causal" in self._inner.options:
            layers.miss("causal")
        if name == "PrefixDecoder":
            self._remarks.differ(
                name, "train it with objective: PrefixNextToken; a forward reads Inputs(visible_prefix=...)", exact=True
            )
        return name != "Encoder"

    def _select(self, prefix: str, count: int, **inherited: Any) -> PartOptions:
        owner = "FeedForward" if prefix == "ff_" else "Attention"
        typed, places = self._prefix + prefix, self._inner.places
        return PartOptions(owner, self._parts[prefix], count, self._remarks, typed, places, inherited)

    def _build_crossing(self, attention: PartOptions, order: Order, *, paired: bool) -> dict[str, Any]:
        count = order.letters.count("c")
        part = self._select("cross_attn_", count, **attention.common)
        self._sublayers["c"] = part.complete()
        layers = self._layers
        spec = build_by_layer(
            part,
            order,
            "Cycle",
            lambda own: make_class("Attention", **build_cross_attention(layers, own, deep=count > 1)),
        )
        own, width = part.select(0), part.select(0).get("dim_context")
        if not paired:
            text = "the context comes with the data: CustomData with inputs: [context]"
            own.differ("dim_context", text, exact=True)
            return {"cross_attention": spec, "context": make_class("GivenContext", **({"dim": width} if width else {}))}
        if width is not None and width != self._layers.get("dim"):
            own.miss("dim_context", "the context is the encoder's output, as wide as the encoder")
        return {"cross_attention": spec}

    def _miss_crossing(self) -> None:
        for option, value in self._parts["cross_attn_"].items():
            self._remarks.miss(f"{self._prefix}cross_attn_{option}", value, "there is no cross-attention")
