import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.nn.heads.base import Head, HeadFactory
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.system.option_checks import check_option, check_slots


class MixtureOfSoftmaxes(Head):
    """Mix the probabilities of several softmaxes, each over the logits of another vector.

    Yang et al., 2017. https://arxiv.org/abs/1711.03953
    Logits are the log of the mixed probabilities, computed in float32 or better. All vectors have one head, as in the
    paper.
    In x-transformers: mixture_of_softmax, mixture_of_softmax_k; the vectors have no tanh there.

    Args:
        head: head that scores each vector.
        num_mixtures: number of softmaxes; memory for logits grows with it.
    """

    gate_maps = ("to_prior",)

    @check_slots
    def __init__(self, embedding: nn.Embedding, *, head: HeadFactory = UntiedHead, num_mixtures: int = 4) -> None:
        super().__init__()
        check_option("head: MixtureOfSoftmaxes", "num_mixtures", num_mixtures, least=2)
        dim = embedding.embedding_dim
        self.head, self.num_mixtures = head(embedding), num_mixtures
        self.to_vectors = nn.Linear(dim, num_mixtures * dim, bias=False)
        # Several maps in one weight, which optimizers of matrices split.
        self.stacked_rows = {"to_vectors": (dim,) * num_mixtures}
        self.to_prior = nn.Linear(dim, num_mixtures, bias=False)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        vectors = self.to_vectors(x).tanh().unflatten(-1, (self.num_mixtures, -1))
        logits = self.head(vectors.flatten(1, 2)).unflatten(1, (-1, self.num_mixtures))
        precise = torch.promote_types(logits.dtype, torch.float32)
        prior = self.to_prior(x).log_softmax(dim=-1, dtype=precise)
        mixed = logits.log_softmax(dim=-1, dtype=precise) + prior.unsqueeze(-1)
        return mixed.logsumexp(dim=-2).to(logits.dtype)
