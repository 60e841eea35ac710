from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.nn.initialization import initialize
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.cross_entropy import IGNORED
from lightning_xt.system.option_checks import check_option


class NextEmbedding(Auxiliary):
    """Predict the embedding of the next token from the hidden state, by the mean absolute difference.

    The continuous head of x-transformers, which names no paper. Two linear maps with a SiLU between them make the
    prediction, and the embeddings get no gradient from it.
    In x-transformers: add_continuous_pred_head, next_embed_loss_weight; the embeddings include positions there.

    Args:
        weight: factor of the loss. None = 0.1, as in x-transformers.
    """

    name = "next_embedding"

    def __init__(self, shape: ObjectiveShape, *, weight: float | None = None) -> None:
        super().__init__()
        check_option("auxiliaries: NextEmbedding", "weight", weight, above=0)
        self.weight = 0.1 if weight is None else weight
        # A tuple, because the table is the model's.
        self._table = (shape.token_embedding,)
        self.to_hidden = nn.Linear(shape.dim, shape.dim, bias=False)
        self.to_embedding = nn.Linear(shape.dim, shape.dim, bias=False)
        initialize(self, calls=1)

    def forward(
        self, states: Float[Tensor, "b n D"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        counted = targets != IGNORED
        predicted = self.to_embedding(F.silu(self.to_hidden(states))).float()
        wanted = F.embedding(targets.masked_fill(~counted, 0), self._table[0].weight.detach()).float()
        distances = (predicted - wanted).abs().mean(dim=-1).masked_fill(~counted, 0.0)
        return self.weight * distances.sum() / counted.sum().clamp(min=1)
