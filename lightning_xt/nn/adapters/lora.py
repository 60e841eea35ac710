from collections.abc import Sequence

from torch import nn

from lightning_xt.nn.adapters.base import Adapter
from lightning_xt.nn.adapters.layer_replacement import replace_layers
from lightning_xt.nn.adapters.low_rank_linear import LowRankLinear
from lightning_xt.system.name_patterns import match_names
from lightning_xt.system.option_checks import check_option


class LoRA(Adapter):
    """Add the product of two narrow matrices to linear maps, and train only these (low-rank adaptation).

    Hu et al., 2021. https://arxiv.org/abs/2106.09685
    One of the two starts at zero, so that the network begins as it was. Maps in one matrix, such as those of queries,
    keys and values, have separate narrow matrices, as in PEFT; dropout hides the same features from all of them.
    Optimizers treat the narrow matrices as they treat the weights of the linear maps: they decay, which takes the
    network back to its base, and MuonAdamW orthogonalizes each.

    Args:
        rank: width of the narrow matrices.
        alpha: the product is multiplied by alpha / rank. None = a factor of 2.
        dropout: fraction of a map's input features that the narrow matrices do not see in training.
        targets: patterns of names of linear maps of the network, such as `*.to_qkv` or `*.feedforward.*`. The default
            is all maps of the layers, without embeddings and head.
        rank_stabilized: True for the factor alpha / sqrt(rank), with which high ranks learn as fast as low ones
            (rsLoRA, Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732).
        trained: patterns of names of the network's parameters that train besides the narrow matrices, such as
            `*norm*` or `head.*` (PEFT's modules_to_save).
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: int | float | None = None,
        dropout: int | float = 0.0,
        targets: Sequence[str] = ("*stack.*",),
        rank_stabilized: bool = False,
        trained: Sequence[str] = (),
    ) -> None:
        super().__init__(trained)
        check_option("adapter: LoRA", "rank", rank, least=1)
        check_option("adapter: LoRA", "alpha", alpha, above=0)
        check_option("adapter: LoRA", "dropout", dropout, least=0, below=1)
        if not targets:
            raise ValueError("adapter: LoRA has no targets; give patterns of linear maps, such as ['*.to_qkv']")
        self.rank, self.dropout, self.targets, self.rank_stabilized = rank, dropout, targets, rank_stabilized
        divisor = rank**0.5 if rank_stabilized else rank
        self.alpha = 2 * divisor if alpha is None else alpha
        self.scale = self.alpha / divisor

    def insert(self, network: nn.Module) -> None:
        maps = {name: each for name, each in network.named_modules() if isinstance(each, nn.Linear)}
        stacked = {
            f"{path}.{name}" if path else name: rows
            for path, owner in network.named_modules()
            for name, rows in getattr(owner, "stacked_rows", {}).items()
        }
        chosen = match_names("adapter: LoRA: targets", self.targets, maps, "linear map")
        replace_layers(
            network,
            {
                each: LowRankLinear(each, stacked.get(name, (each.out_features,)), self.rank, self.scale, self.dropout)
                for name, each in maps.items()
                if name in chosen
            },
        )
