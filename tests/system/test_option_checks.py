"""One sentence for a number that an option cannot have."""

import pytest

from lightning_xt.core.shapes import AttentionShape, LayerShape
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
