"""Copy of all weights of an x-transformers model to one of this project, by structure."""

from collections.abc import Sequence

from parity.attentions import copy_attention
from parity.constants import copy_constants
from parity.ledger import Ledger
from parity.parts import copy_feedforward, copy_linear, copy_norm, copy_residual
from torch import nn

LETTERS = {"attention": "a", "cross_attention": "c", "feedforward": "f"}


def copy_model(theirs: nn.Module, ours: nn.Module, zeros: Sequence[str] = ()) -> Ledger:
    """Copy a TransformerWrapper to a decoder, or an XTransformer to an encoder-decoder.

    Args:
        theirs: model whose weights are copied.
        ours: model whose weights are filled.
        zeros: ends of the names of their weights that have no counterpart, and are zero.
    """
    ledger = Ledger(theirs, ours, zeros)
    if hasattr(theirs, "encoder"):
        copy_tokens(theirs.encoder, ours.encoder, ledger)
        copy_layers(theirs.encoder.attn_layers, ours.encoder.stack, ledger)
        copy_constants(theirs.encoder.attn_layers, ours.encoder, ledger)
        shared = theirs.encoder.token_emb is theirs.decoder.net.token_emb
        copy_decoder(theirs.decoder.net, ours.decoder, ledger, shared)
    else:
        copy_decoder(theirs, ours, ledger)
    ledger.check()
    return ledger


def copy_decoder(theirs: nn.Module, ours: nn.Module, ledger: Ledger, shared: bool = False) -> None:
    """Copy a decoder with its head."""
    copy_tokens(theirs, ours, ledger, shared)
    tied = not isinstance(theirs.to_logits, nn.Module)
    heads = [each for each in ours.head.modules() if type(each).__name__ == "TiedHead"]
    # Their tied head has a factor, which the gain of the last norm takes if ours has another one.
    copy_layers(theirs.attn_layers, ours.stack, ledger, theirs.tie_embedding_scale / heads[0].scale if tied else 1.0)
    copy_constants(theirs.attn_layers, ours, ledger)
    if not tied:
        (linear,) = (each for each in ours.head.modules() if type(each).__name__ == "UntiedHead")
        copy_linear(theirs.to_logits, linear.to_logits, ledger)
    if theirs.to_mixture is not None:
        copy_linear(theirs.to_mixture[0], ours.head.to_vectors, ledger)
        copy_linear(theirs.combine_mixture, ours.head.to_prior, ledger)


def copy_tokens(theirs: nn.Module, ours: nn.Module, ledger: Ledger, shared: bool = False) -> None:
    """Copy the token vectors and everything that is added to them."""
    if not shared:
        ledger.fill(ours.token_embedding.weight, ledger.take(theirs.token_emb.emb.weight))
    parts = {type(each).__name__: each for each in ours.embeddings}
    kind = type(theirs.pos_emb).__name__
    if kind == "AbsolutePositionalEmbedding":
        table = ledger.take(theirs.pos_emb.emb.weight)
        ledger.fill(parts["LearnedPositions"].table.weight, table * theirs.pos_emb.scale)
    elif kind == "ScaledSinusoidalEmbedding":
        theirs.pos_emb.inv_freq = parts["SinusoidalPositions"].frequencies.double()
        ledger.fill(parts["SinusoidalPositions"].scale, ledger.take(theirs.pos_emb.scale)[0])
    for table in () if theirs.embeds is None else theirs.embeds.values():
        ledger.fill(parts["TypeEmbedding"].table.weight, ledger.take(table.weight))
    if type(theirs.post_emb_norm).__name__ == "LayerNorm":
        copy_norm(theirs.post_emb_norm, parts["EmbeddingNorm"].norm, ledger)
    if theirs.ff_deep_embed is not None:
        tables = [each for each in ours.modules() if type(each).__name__ == "DeepEmbed"]
        for own, table in zip(tables, ledger.take(theirs.ff_deep_embed).unbind(1), strict=True):
            ledger.fill(own.table.weight, table - 1)


def copy_layers(theirs: nn.Module, ours: nn.Module, ledger: Ledger, factor: float = 1.0) -> None:
    """Copy all sublayers, in the order in which they run first, and the last norm."""
    steps = list(dict.fromkeys(ours.steps))
    first = list(dict.fromkeys(theirs.layers_execute_order))
    assert [LETTERS[step.kind] for step in steps] == [theirs.layer_types[index] for index in first]
    assert len(ours.steps) == len(theirs.layers_execute_order)
    for step, index in zip(steps, first, strict=True):
        copy_sublayer(theirs.layers[index], ours.sublayers[step.name], ledger, theirs.rotary_pos_emb)
    if type(theirs.final_norm).__name__ == "Identity":
        assert ours.output_norm is None
    else:
        copy_norm(theirs.final_norm, ours.output_norm, ledger, factor)


def copy_sublayer(theirs: nn.Module, ours: nn.Module, ledger: Ledger, rotary: nn.Module | None) -> None:
    """Copy one sublayer with its norms, its scale and its residual."""
    (before, after, stream), branch, residual = theirs
    placement = ours.placement
    for their_norm, own in (
        (before, placement.norm_before),
        (after, placement.norm_after),
        (stream, placement.norm_stream),
    ):
        assert (their_norm is None) == (own is None)
        if their_norm is not None:
            copy_norm(their_norm, own, ledger)
    while type(branch).__name__ in ("LayerScale", "Scale", "ShiftTokens"):
        if type(branch).__name__ == "LayerScale":
            ledger.fill(ours.scale.gain, ledger.take(branch.gamma) + float(branch.unit_offset))
        branch = branch.fn
    if type(branch).__name__ == "Attention":
        copy_attention(branch, ours.branch, ledger, rotary)
    else:
        own = ours.branch.feedforward
        copy_feedforward(branch, own.feedforward if type(own).__name__ == "DeepEmbed" else own, ledger)
    copy_residual(residual, ours.residual, ledger)
