from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.feedforward.base import FeedForward, FeedForwardFactory
from lightning_xt.nn.feedforward.expert_blocks import ExpertBlocks, run_sorted
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.system.option_checks import check_option, check_slots

FEW = 8
"""Tokens that all experts read: copies of the weights of some, for blocks of tokens, would take longer."""


class Routing(NamedTuple):
    """Experts of each token.

    Args:
        scores: scores of all experts, in float32 or better.
        chosen: experts of each token, the best first.
        gates: factors of the outputs of the chosen ones.
    """

    scores: Float[Tensor, "b n experts"]
    chosen: Int[Tensor, "b n k"]
    gates: Float[Tensor, "b n k"]


class MixtureOfExperts(FeedForward):
    """Send each token to a few of many feedforwards, chosen by a router, and add up what these return.

    Fedus, Zoph and Shazeer, 2021 (Switch), https://arxiv.org/abs/2101.03961; Zoph et al., 2022 (ST-MoE),
    https://arxiv.org/abs/2202.08906; shared experts: Dai et al., 2024 (DeepSeekMoE), https://arxiv.org/abs/2401.06066
    An expert takes any number of tokens, so that no token is dropped or depends on other tokens. The gates of several
    experts add up to 1; a single expert's is its probability, so that the router learns. In training two terms are
    added to the loss, over the tokens that count only: `balance_loss`, 1 if all experts are used alike, and
    `router_z_loss`.

    Args:
        expert: builds each expert.
        num_experts: number of experts.
        top_k: number of experts of each token.
        shared: builds a further expert, which every token passes. None = there is none.
        balance_weight: weight, in the training loss, of each layer's product of the fraction of tokens and the mean
            probability of each expert, added up and multiplied by the number of experts.
        router_z_weight: weight, in the training loss, of each layer's squared logarithm of the sum of exponentiated
            scores of the router.
    """

    gate_maps = ("router",)

    @check_slots
    def __init__(
        self,
        shape: LayerShape,
        *,
        expert: FeedForwardFactory = MLP,
        num_experts: int = 8,
        top_k: int = 2,
        shared: FeedForwardFactory | None = None,
        balance_weight: float = 0.01,
        router_z_weight: float = 0.001,
    ) -> None:
        super().__init__()
        where = "feedforward: MixtureOfExperts"
        check_option(where, "num_experts", num_experts, least=2)
        check_option(where, "top_k", top_k, least=1, most=num_experts)
        check_option(where, "balance_weight", balance_weight, least=0)
        check_option(where, "router_z_weight", router_z_weight, least=0)
        self.top_k, self.balance_weight, self.router_z_weight = top_k, balance_weight, router_z_weight
        self.router = nn.Linear(shape.dim, num_experts, bias=False)
        self.experts = nn.ModuleList(expert(shape) for _ in range(num_experts))
        reading = [type(part).__name__ for part in self.experts.modules() if getattr(part, "reads_tokens", False)]
        if reading:
            raise ValueError(
                f"{where} has experts of {reading[0]}, which reads token ids, but an expert gets vectors in another "
                f"order; choose another expert, or put the experts into {reading[0]}"
            )
        needing = [part for part in self.experts.modules() if getattr(part, "needed_input", None) is not None]
        if needing:
            raise ValueError(
                f"{where} has experts with {type(needing[0]).__name__}, which reads Inputs({needing[0].needed_input}"
                "=...), but an expert gets vectors only; choose another part, or use it outside the experts"
            )
        self.shared = None if shared is None else shared(shape)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        routed = self._gather(x, self._route(x))
        return routed if self.shared is None else routed + self.shared(x)

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        routing = self._route(x)
        out = self._gather(x, routing)
        if self.training:
            trace = self._add_losses(routing, inputs.find_counted(where.valid), trace)
        if self.shared is not None:
            own, trace = self.shared.transform(x, where, inputs, trace)
            out = out + own
        return out, trace

    def _route(self, x: Float[Tensor, "b n D"]) -> Routing:
        scores = self.router(x).to(torch.promote_types(x.dtype, torch.float32))
        gates, chosen = scores.softmax(dim=-1).topk(self.top_k, dim=-1)
        if self.top_k > 1:
            gates = gates / gates.sum(dim=-1, keepdim=True)
        return Routing(scores, chosen, gates)

    def _gather(self, x: Float[Tensor, "b n D"], routing: Routing) -> Float[Tensor, "b n D"]:
        chosen, gates = routing.chosen.flatten(0, 1), routing.gates.flatten(0, 1).to(x.dtype)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            made = run_sorted(list(self.experts), x.flatten(0, 1), chosen)
            return (made * gates.unsqueeze(-1)).sum(dim=1).view_as(x)
        # Kernels of quantized matrices do not run for several experts at once.
        quantized = next(self.experts.buffers(), None) is not None
        # An exported program serves any number of tokens.
        few = torch.compiler.is_exporting() or len(chosen) <= FEW
        if quantized or (not self.training and few):
            spread = torch.zeros_like(routing.scores).scatter(-1, routing.chosen, routing.gates).to(x.dtype)
            return torch.stack([each(x) * spread[..., e, None] for e, each in enumerate(self.experts)]).sum(dim=0)
        blocks = ExpertBlocks.sort(chosen, len(self.experts))
        made = blocks.collect(self._run_experts(blocks.spread(x.flatten(0, 1)), blocks.owners))
        return (made * gates.unsqueeze(-1)).sum(dim=1).view_as(x)

    def _run_experts(
        self, x: Float[Tensor, "blocks rows D"], owners: Int[Tensor, " blocks"]
    ) -> Float[Tensor, "blocks rows D"]:
        """Run each block through its expert, all at once."""
        states = [{**dict(each.named_parameters()), **dict(each.named_buffers())} for each in self.experts]
        weights = {name: torch.stack([state[name] for state in states])[owners] for name in states[0]}

        def run(own: dict[str, Tensor], block: Tensor) -> Tensor:
            out: Tensor = functional_call(self.experts[0], own, (block.unsqueeze(0),))
            return out.squeeze(0)

        out: Tensor = torch.vmap(run, randomness="different")(weights, x)
        return out

    def _add_losses(self, routing: Routing, counted: Tensor | None, trace: Trace) -> Trace:
        """Add the terms for the loss, means over the tokens that count."""
        scores, num_experts = routing.scores, len(self.experts)
        counts = (
            scores.new_ones(scores.shape[:2]) if counted is None else counted.to(scores.dtype).expand(len(scores), -1)
        )
        total = counts.sum().clamp(min=1)
        used = (
            (routing.chosen[..., None] == torch.arange(num_experts, device=scores.device)).to(scores.dtype).mean(dim=2)
        )
        fractions = (used * counts[..., None]).sum(dim=(0, 1)) / total
        probabilities = (scores.softmax(dim=-1) * counts[..., None]).sum(dim=(0, 1)) / total
        trace = trace.add_loss("balance_loss", num_experts * (fractions * probabilities).sum(), self.balance_weight)
        z = (scores.logsumexp(dim=-1).square() * counts).sum() / total
        return trace.add_loss("router_z_loss", z, self.router_z_weight)
