"""Maximal update parametrisation: learning rates that hold at every width."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from lightning_xt.models.token_embedding import TokenEmbedding
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import find_recurrences
from lightning_xt.nn.heads.base import Head
from lightning_xt.nn.norms.unit_norm import UnitNorm
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.matrix_optimizer import MatrixOptimizer
from lightning_xt.training.optim.parameter_groups import list_stacked_rows

Shape = tuple[int, ...]
OMIT = "or omit --model.mup_base_dim"
UNUSUAL = 0.123
"""A scale that no score has."""


class MaximalUpdate:
    """Rules that make the learning rate of a base width right for another one (muP).

    Yang et al., 2022 (Tensor Programs V), https://arxiv.org/abs/2203.03466; for Muon the spectral condition of Yang,
    Simon and Bernstein, 2023, https://arxiv.org/abs/2310.17813: a step's largest singular value grows with the root of
    outputs / inputs. What grows with the width is found by comparison with the same network at the base width. There
    nothing changes. Elsewhere:

        linear map, head, gate     AdamW's learning rate is divided by the growth of the inputs; a part's
                                   `query_vectors` name vectors that are such maps, to one number
        hidden matrix of Muon      its learning rate is multiplied so that the spectral condition holds; maps whose
                                   inputs and outputs both grow need no change
        embedding, gain, bias      no change
        scores of attention        divided by the growth of the heads' width, not by its root
        weight decay               divided by the factor of the learning rate, so that as much decays a step

    Initial values need no change: see `nn.initialization`; the head starts at zero.

    Args:
        network: the network, whose scores change.
        build_base: builds it at the base width.
    """

    def __init__(self, network: nn.Module, build_base: Callable[[], nn.Module]) -> None:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            base = build_base()
        _refuse_parts(network)
        self.maps: dict[str, list[tuple[Shape, Shape]]] = {}
        """Sizes (rows, columns) of each linear map in a weight, here and at the base width, by the weight's name."""
        self.changes_scores = False
        """True if scores of attention have another scale than one divided by the root of their width."""
        shapes = dict(base.named_parameters())
        linears = {id(part.weight) for part in network.modules() if isinstance(part, nn.Linear)}
        tables = {id(part.weight) for part in network.modules() if isinstance(part, nn.Embedding)}
        rows, base_rows = list_stacked_rows(network), list_stacked_rows(base)
        queries = {id(vector) for vector in _list_query_vectors(network)}
        for name, p in network.named_parameters():
            if name not in shapes or shapes[name].dim() != p.dim():
                raise ValueError(f"model.mup_base_dim: {name} has no counterpart at the base width; {OMIT[3:]}")
            its = shapes[name]
            if id(p) in linears:
                pairs = zip(rows.get(id(p), p.shape[:1]), base_rows.get(id(its), its.shape[:1]), strict=True)
                self.maps[name] = [((mine, p.shape[1]), (other, its.shape[1])) for mine, other in pairs]
            elif id(p) in queries:
                self.maps[name] = [((1, len(p)), (1, len(its)))]
            elif id(p) not in tables and p.shape != its.shape and sum(size > 1 for size in p.shape) > 1:
                raise ValueError(
                    f"model.mup_base_dim: {name} {tuple(p.shape)} grows with the width, but is neither a linear map "
                    f"nor a vector, so there is no rule for its learning rate; choose another part, {OMIT}"
                )
        for own, other in zip(network.modules(), base.modules(), strict=True):
            if isinstance(own, Attention) and isinstance(other, Attention):
                # Both are one divided by the root of a width; their quotient makes the other root.
                growth = own.projection.scale / other.projection.scale
                own.projection.scale *= growth
                self.changes_scores |= growth != 1

    def split_groups(
        self, groups: list[dict[str, Any]], optimizer: Optimizer, network: nn.Module
    ) -> list[dict[str, Any]]:
        """Split groups by the factors of their learning rates, which `scale_rates` reads.

        Args:
            groups: groups of `parameter_groups`.
            optimizer: built for them; it is not changed.
            network: the network, perhaps a copy or with other parameters of the same names.

        Raises:
            ValueError: there is no rule for the optimizer, or for a parameter outside the network.
        """
        _check_optimizer(optimizer)
        own = {id(p): name for name, p in network.named_parameters()}
        found = []
        for group, built in zip(groups, optimizer.param_groups, strict=True):
            parts: dict[float, list[tuple[str, nn.Parameter]]] = {}
            for name, p in group["params"]:
                if id(p) not in own:
                    raise ValueError(
                        f"model.mup_base_dim: there is no rule for the learning rate of {name}, which is not a part of "
                        f"the network; omit the part of the objective that it belongs to, {OMIT}"
                    )
                parts.setdefault(self._find_factor(own[id(p)], optimizer, built), []).append((name, p))
            found += [{**group, "params": members, "lr_factor": factor} for factor, members in parts.items()]
        return found

    def _find_factor(self, name: str, optimizer: Optimizer, group: dict[str, Any]) -> float:
        """Return the factor of a parameter's learning rate."""
        if name not in self.maps:
            return 1.0
        maps = self.maps[name]
        if not isinstance(optimizer, MatrixOptimizer) or group["role"] != "matrix":
            (_, columns), (_, base_columns) = maps[0]
            return base_columns / columns
        factors = {round(_compare_norms(optimizer, group, *each), 9) for each in maps}
        if len(factors) > 1:
            raise ValueError(
                f"model.mup_base_dim: the maps in {name} need different learning rates, because only some of them grow "
                f"with the width; let all of them, or none: set kv_heads, dim_head or value_dim, {OMIT}"
            )
        return factors.pop()


def _refuse_parts(network: nn.Module) -> None:
    """Raise a ValueError for parts whose learning rate or size the rules do not cover."""
    tables = {id(part.weight) for part in network.modules() if isinstance(part, nn.Embedding)}
    for part in network.modules():
        if isinstance(part, Head) and any(id(p) in tables for p in part.parameters(recurse=False)):
            raise ValueError(
                f"model.mup_base_dim: head: {type(part).__name__} shares the table of the embedding, but the two need "
                f"different learning rates; set --model.decoder.head UntiedHead, {OMIT}"
            )
        if isinstance(part, Attention) and part.score.choose_scale(UNUSUAL) != UNUSUAL:
            raise ValueError(
                f"model.mup_base_dim: score: {type(part.score).__name__} has a scale, which the width decides; omit "
                f"the scale, {OMIT}"
            )
        if isinstance(part, UnitNorm):
            raise ValueError(
                "model.mup_base_dim: UnitNorm gives vectors a length whose growth with the width has no rule; choose "
                f"another norm, such as RMSNorm, {OMIT}"
            )
        if isinstance(part, TokenEmbedding) and part.projection is not None:
            raise ValueError(
                "model.mup_base_dim: embedding_dim makes one map serve before the first layer and, transposed, after "
                f"the last one, but the two need different learning rates; omit embedding_dim, {OMIT}"
            )
    if names := find_recurrences(network):
        raise ValueError(
            f"model.mup_base_dim: attention: {', '.join(names)} is a recurrence, for whose state there is no rule; set "
            f"--model.decoder.attention Attention, {OMIT}"
        )


def _list_query_vectors(network: nn.Module) -> Iterator[nn.Parameter]:
    """List the vectors that make one number of a token's features by a product."""
    for part in network.modules():
        for name in getattr(part, "query_vectors", ()):
            # Some calls do without.
            if getattr(part, name) is not None:
                yield getattr(part, name)


def choose_update(
    network: nn.Module, build: Callable[..., nn.Module], base_dim: int | None, adapter: object | None
) -> MaximalUpdate | None:
    """Return the rules for a network that was chosen at a base width, and scale its scores; None without a base width.

    Args:
        network: the network.
        build: builds it, with the option `dim` for its width.
        base_dim: width at which the learning rate was chosen. None = no rules.
        adapter: factory of an adapter of the network. None = there is none.

    Raises:
        ValueError: the base width is not a width of the network, or there is no rule for a part.
    """
    if base_dim is None:
        return None
    check_option("model", "mup_base_dim", base_dim, least=1)
    if adapter is not None:
        raise ValueError(f"model.mup_base_dim: an adapter trains in the place of the network's maps; omit it, {OMIT}")
    try:
        return MaximalUpdate(network, lambda: build(dim=base_dim))
    except (TypeError, ValueError) as error:
        if str(error).startswith("model.mup_base_dim"):
            raise
        raise ValueError(
            f"model.mup_base_dim {base_dim}: the decoder cannot be built at this width: {error}; choose another width, "
            f"{OMIT}"
        ) from error


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rates of groups of `MaximalUpdate.split_groups` by their factors."""
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_factor"]
        if group.get("weight_decay"):
            group["weight_decay"] /= group["lr_factor"]


def _compare_norms(optimizer: MatrixOptimizer, group: dict[str, Any], here: Shape, base: Shape) -> float:
    """Return the factor that makes a step's largest singular value grow with the root of rows / columns."""
    norms = [optimizer.measure_step(group, *shape) for shape in (here, base)]
    if norms[0] is None or norms[1] is None:
        raise ValueError(_refuse(optimizer))
    wanted = (here[0] / here[1] * base[1] / base[0]) ** 0.5
    return wanted * norms[1] / norms[0]


def _check_optimizer(optimizer: Optimizer) -> None:
    """Raise a ValueError for an optimizer for whose steps or weight decay there is no rule."""
    if type(optimizer) not in (Adam, AdamW) and not isinstance(optimizer, MatrixOptimizer):
        raise ValueError(_refuse(optimizer))
    decays = [group["weight_decay"] for group in optimizer.param_groups if not group.get("decoupled_weight_decay")]
    if type(optimizer) is Adam and any(decays):
        # Its step divides the decay by the size of the gradient, which depends on the width.
        raise ValueError(
            f"model.mup_base_dim: Adam adds weight_decay {max(decays):g} times the weights to their gradient, for "
            f"which there is no rule; set --model.optimizer AdamW, whose decay is separate, or weight_decay 0, {OMIT}"
        )


def _refuse(optimizer: Optimizer) -> str:
    return (
        f"model.mup_base_dim: there is no rule for the steps of {type(optimizer).__name__}; set --model.optimizer "
        f"AdamW or MuonAdamW, {OMIT}"
    )
