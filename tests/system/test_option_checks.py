"""One sentence for a number that an option cannot have."""

import inspect
import re
import typing
from collections.abc import Callable
from functools import partial

import pytest
from catalogue import FAMILIES, list_variants
from torch import nn

from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.contexts.learned_context import LearnedContext
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.rope_scalings.linear_scaling import LinearScaling
from lightning_xt.nn.rope_scalings.llama3_scaling import Llama3Scaling
from lightning_xt.nn.rope_scalings.ntk_scaling import NTKScaling
from lightning_xt.nn.rope_scalings.yarn_scaling import YarnScaling
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

PARTS = [
    variant for family in dict.fromkeys(family for family, _ in FAMILIES.values()) for variant in list_variants(family)
]
LAYER = LayerShape(dim=12)
HEADS = AttentionShape(dim=12, heads=2, kv_heads=2, dim_head=6)


def test_names_every_rule() -> None:
    check_option("slot: Class", "option", 3, least=3, below=4)
    with pytest.raises(ValueError, match=r"^slot: Class has option 4, which must be at least 3 and below 4$"):
        check_option("slot: Class", "option", 4, least=3, below=4)
    with pytest.raises(ValueError, match=r"^slot: Class has option nan, which must be above 0$"):
        check_option("slot: Class", "option", float("nan"), above=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Latent(HEADS, latent_dim=0), "projection: Latent has latent_dim 0, which must be at least 1"),
        (lambda: Latent(HEADS, query_latent_dim=0), "projection: Latent has query_latent_dim 0, which must be"),
        (lambda: Latent(HEADS, rotary_dim=0), "projection: Latent has rotary_dim 0, which must be at least 1"),
        (lambda: LinearScaling(factor=0.5), "rope_scaling: LinearScaling has factor 0.5, which must be at least 1"),
        (lambda: NTKScaling(factor=0.0), "rope_scaling: NTKScaling has factor 0.0, which must be at least 1"),
        (lambda: YarnScaling(factor=0.0), "rope_scaling: YarnScaling has factor 0.0, which must be at least 1"),
        (lambda: Llama3Scaling(factor=0.0), "rope_scaling: Llama3Scaling has factor 0.0, which must be at least 1"),
        (lambda: LearnedPositions(LAYER, max_length=-3), "embeddings: LearnedPositions has max_length -3, which must"),
        (lambda: TypeEmbedding(LAYER, num_types=0), "embeddings: TypeEmbedding has num_types 0, which must be at"),
        (lambda: LearnedContext(LAYER, num_vectors=0), "context: LearnedContext has num_vectors 0, which must be at"),
        (lambda: MLP(LAYER, hidden_dim=0), "feedforward: MLP has hidden_dim 0, which must be at least 1"),
        (lambda: MLP(LAYER, dropout=1.0), "feedforward: MLP has dropout 1.0, which must be at least 0 and below 1"),
        (lambda: SwiGLU(LAYER, dropout=-0.1), "feedforward: SwiGLU has dropout -0.1, which must be at least 0"),
    ],
)
def test_options_say_what_they_may_be(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def holds_factories(hint: object) -> bool:
    return typing.get_origin(hint) is Callable or any(map(holds_factories, typing.get_args(hint)))


def test_a_name_in_a_slot_is_refused_with_the_way_out() -> None:
    message = (
        r"^attention has the name 'ALiBi'; from Python pass the class ALiBi itself, or partial\(ALiBi, \.\.\.\) for"
    )
    with pytest.raises(ValueError, match=message):
        Decoder(11, attention="ALiBi")
    with pytest.raises(
        ValueError, match=r"^score_mods has the name 'SoftCap'; from Python pass the class SoftCap itself"
    ):
        Attention(LAYER, score_mods=["SoftCap"])


SLOTS = [
    (kind, option.name)
    for kind in (Decoder, Encoder, EncoderDecoder, *PARTS)
    for option in inspect.signature(kind).parameters.values()
    if option.kind is option.KEYWORD_ONLY and holds_factories(option.annotation)
]


def test_networks_have_slots() -> None:
    assert {("Decoder", "norm"), ("Encoder", "attention"), ("Attention", "position"), ("MLP", "activation")} <= {
        (kind.__name__, slot) for kind, slot in SLOTS
    }


@pytest.mark.parametrize(("kind", "slot"), SLOTS)
def test_every_slot_of_a_network_refuses_a_name(kind: type, slot: str) -> None:
    with pytest.raises(ValueError, match=f"^{slot} has the name 'Name'; from Python pass the class Name itself"):
        kind(**{slot: "Name"})


class Plain(nn.Module):
    """A module of no family."""


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Decoder(11, feedforward=Plain), "feedforward is Plain, which is not a subclass of FeedForward; "
         "derive your class from lightning_xt.nn.feedforward.base.FeedForward"),
        (lambda: Decoder(11, feedforward=partial(Plain)), "feedforward is Plain, which is not a subclass of FeedF"),
        (lambda: Decoder(11, feedforward=MLP(LAYER)), "feedforward is an object of MLP; pass the class that builds it"),
        (lambda: Decoder(11, attention={"heads": 2}), "attention is an object of dict; pass the class that builds it"),
        (lambda: LanguageModel({"target": 11}, Plain), "decoder is Plain, which is not a subclass of Decoder"),
        (lambda: LanguageModel({"target": 11}, optimizer="AdamW"), "optimizer has the name 'AdamW'; from Python pass"),
        (lambda: Seq2Seq({"source": 11, "target": 11}, encoder=Decoder), "encoder is Decoder, which is not a"),
        (lambda: GenerationOptions(method="BeamSearch"), "method has the name 'BeamSearch'; from Python pass the"),
        (lambda: GenerationOptions(filters=[MLP]), "filters is MLP, which is not a subclass of Filter"),
    ],
)  # fmt: skip
def test_cases_n7_a_slot_from_python_takes_what_builds_its_part(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build()
