"""Choice of the parameters of a network that train: those of an adapter, or all but frozen ones."""

from collections.abc import Sequence

from torch import nn

from lightning_xt.nn.adapters.base import AdapterFactory
from lightning_xt.system.name_patterns import match_names


def adapt_network(network: nn.Module, adapter: AdapterFactory | None, frozen: Sequence[str]) -> None:
    """Add an adapter to a network, which freezes what the adapter does not train, then freeze parameters by name.

    Args:
        network: it is changed in place.
        adapter: factory of the adapter. None = all parameters train.
        frozen: patterns of names of parameters that do not train.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    if adapter is not None:
        adapter().adapt(network)
    named = dict(network.named_parameters(remove_duplicate=False))
    for name in match_names("model.frozen", frozen, named, "parameter"):
        named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ValueError(
            f"model.frozen is {list(frozen)}, which leaves no parameter of the network to train; remove a pattern"
        )


def count_trained(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of trained and of all parameters; shared ones count once."""
    parameters = list(module.parameters())
    return sum(each.numel() for each in parameters if each.requires_grad), sum(each.numel() for each in parameters)
