"""Rules by which the weights of a model of x-transformers become those of a network here."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.exchange.tensor_rules import ImportRule, RepeatedTensor
from lightning_xt.exchange.x_transformers.norm_rules import add_layer_norm, add_norm
from lightning_xt.exchange.x_transformers.position_rules import add_shared_positions
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.exchange.x_transformers.sublayer_rules import add_sublayer
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.stack import Stack
from lightning_xt.models.sublayer import Sublayer
from lightning_xt.nn.embeddings.embedding_norm import EmbeddingNorm
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.sinusoidal_positions import SinusoidalPositions
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.feedforward.deep_embed import DeepEmbed
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.nn.norms.layer_norm import LayerNorm

PREFIXES = {"encoder": "encoder.", "decoder": "decoder.net."}
"""Prefixes of the tensors of the two networks of an XTransformer."""
LETTERS = {"attention": "a", "cross_attention": "c", "feedforward": "f"}
TOKENS = "token_emb.emb.weight"


def list_rules(network: nn.Module, options: Mapping[str, StackOptions]) -> list[ImportRule]:
    """List the rules of all tensors.

    Args:
        network: a decoder, or an encoder-decoder, as the options are translated; it may be without memory.
        options: those of the networks, by `decoder` and `encoder`.

    Raises:
        TensorMisfitError: a part of the network has no counterpart in x-transformers.
    """
    rules = RuleBuilder(network)
    if isinstance(network, EncoderDecoder):
        shared = network.encoder.token_embedding is network.decoder.token_embedding
        tables = {side: prefix + TOKENS for side, prefix in PREFIXES.items()}
        rules.copy(network.encoder.token_embedding.weight, tables["encoder"])
        if shared:
            rules.rules.append(RepeatedTensor(tables["decoder"], tables["encoder"]))
        else:
            rules.copy(network.decoder.token_embedding.weight, tables["decoder"])
        for side, prefix in PREFIXES.items():
            _add_network(rules, getattr(network, side), prefix, options[side])
    else:
        own = cast(Decoder, network)
        rules.copy(own.token_embedding.weight, TOKENS)
        _add_network(rules, own, "", options["decoder"])
    return rules.rules


def _add_network(rules: RuleBuilder, ours: Decoder | Encoder, prefix: str, options: StackOptions) -> None:
    """Add the rules of a network besides its token vectors."""
    _add_embeddings(rules, ours, prefix, options)
    _add_stack(rules, ours.stack, f"{prefix}attn_layers.", options)
    head = getattr(ours, "head", None)
    for each in () if head is None else head.modules():
        if isinstance(each, UntiedHead):
            rules.copy(each.to_logits.weight, f"{prefix}to_logits.weight")


def _add_embeddings(rules: RuleBuilder, ours: Decoder | Encoder, prefix: str, options: StackOptions) -> None:
    """Add the rules of everything that is added to token vectors, and of the tables that multiply feedforwards."""
    unit, dim = options.wrapper["l2norm_embed"], ours.stack.dim

    def scale(table: Tensor) -> Tensor:
        return F.normalize(table, dim=-1) if unit else table * dim**-0.5

    for part in ours.embeddings:
        if isinstance(part, LearnedPositions):
            table = part.table.weight
            rules.compute(table, {f"{prefix}pos_emb.emb.weight": tuple(table.shape)}, scale)
        elif isinstance(part, SinusoidalPositions) and part.scale is not None:
            rules.compute(part.scale, {f"{prefix}pos_emb.scale": (1,)}, lambda given: given[0])
        elif isinstance(part, TypeEmbedding):
            (name,) = options.wrapper["embed_num_tokens"]
            rules.copy(part.table.weight, f"{prefix}embeds.{name}_embed.weight")
        elif isinstance(part, EmbeddingNorm) and isinstance(part.norm, LayerNorm):
            add_layer_norm(rules, part.norm, f"{prefix}post_emb_norm.")
    tables = [each.table.weight for each in ours.modules() if isinstance(each, DeepEmbed)]
    for number, each in enumerate(tables):
        rows, width = each.shape
        theirs = {f"{prefix}ff_deep_embed": (rows, len(tables), width)}
        rules.compute(each, theirs, lambda given, number=number: given[:, number] - 1)


def _add_stack(rules: RuleBuilder, ours: Stack, prefix: str, options: StackOptions) -> None:
    """Add the rules of all sublayers, of the last norm and of shared positions."""
    steps = list(dict.fromkeys(ours.steps))
    placed = dict(zip(options.list_indices(len(steps)), steps, strict=True))
    seen = Counter[str]()
    for index, step in sorted(placed.items()):
        letter = LETTERS[step.kind]
        own = options.sublayers[letter][seen[letter]]
        seen[letter] += 1
        sublayer = cast(Sublayer, ours.sublayers[step.name])
        add_sublayer(rules, sublayer, f"{prefix}layers.{index}.", index, options, own)
    if ours.output_norm is not None:
        add_norm(rules, ours.output_norm, f"{prefix}final_norm.", options)
    add_shared_positions(rules, ours, prefix, options)
