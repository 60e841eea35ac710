from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.cross_entropy import IGNORED
from lightning_xt.system.option_checks import check_option


class ExitGate(Auxiliary):
    """Minimise the loss expected over the exits of a looped stack, by a learned distribution over them.

    Zhu et al., 2025 (Ouro, looped language models). https://arxiv.org/abs/2510.25741
    After each pass a gate gives the probability that the token leaves there, if it has not left before; the last pass
    keeps the rest. The loss is the expectation of the losses of all exits, less the weighted entropy of the
    distribution, which keeps the gate from choosing one exit for ever. The term is the difference to the loss of the
    last exit, which the objective adds; the gate starts at one half.
    In x-transformers: looped, looped_pred_all_logits, looped_exit_loss_weight; the gate learns which exit improves on
    the one before there.

    Args:
        entropy_weight: factor of the entropy, in nats.
    """

    name = "exit_gate"

    def __init__(self, shape: ObjectiveShape, *, entropy_weight: float = 0.1) -> None:
        super().__init__()
        check_option("auxiliaries: ExitGate", "entropy_weight", entropy_weight, least=0)
        self.entropy_weight = entropy_weight
        # A tuple, because the head is the model's.
        self._head = (shape.head,)
        self.to_gate = nn.Parameter(torch.zeros(shape.dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self, states: Float[Tensor, "b n D"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        raise NotImplementedError("ExitGate reads all exits of a trace, not the states of one; call compute")

    def compute(
        self, trace: Trace, logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        exits = trace.exits
        if len(exits) < 2:
            raise ValueError(
                f"auxiliaries: ExitGate chooses among the exits of a looped stack, but the model has {len(exits)}; "
                "give the network passes: ExitLoops, or omit ExitGate"
            )
        log_probs = self.compute_log_probs(exits)
        probabilities = log_probs.exp()
        earlier = [_compute_losses(self._head[0](states), targets) for states in exits[:-1]]
        losses = torch.stack((*earlier, _compute_losses(logits, targets)))
        expected = (probabilities * losses).sum(dim=0) - losses[-1]
        entropy = -(probabilities * log_probs).sum(dim=0)
        counted = targets != IGNORED
        total = (expected - self.entropy_weight * entropy).masked_fill(~counted, 0.0).sum()
        return total / counted.sum().clamp(min=1)

    def compute_log_probs(self, exits: Sequence[Float[Tensor, "b n D"]]) -> Float[Tensor, "exits b n"]:
        """Compute the logarithms of the probabilities of each token's exits, in float32 or better."""
        precise = torch.promote_types(exits[0].dtype, torch.float32)
        log_probs, log_stays = [], torch.zeros(exits[0].shape[:2], dtype=precise, device=exits[0].device)
        for states in exits[:-1]:
            with disable_autocast(states):
                score = (states.to(precise) @ self.to_gate.to(precise)) + self.bias.to(precise)
            log_probs.append(log_stays + F.logsigmoid(score))
            log_stays = log_stays + F.logsigmoid(-score)
        return torch.stack((*log_probs, log_stays))


def _compute_losses(logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Compute the negative log-likelihood of each target, 0 where it does not count."""
    precise = torch.promote_types(logits.dtype, torch.float32)
    each = F.cross_entropy(logits.flatten(0, 1).to(precise), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return each.view_as(targets)
