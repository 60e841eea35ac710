"""The contract of an adapter: a few parameters, added to a network after it was built, that train in its place."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import nn

from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.system.name_patterns import match_names


class Adapter(ABC):
    """Few parameters, added to a network after it was built, that train while the network is frozen.

    Args:
        trained: patterns of names of the network's parameters that train besides those of the adapter.
    """

    def __init__(self, trained: Sequence[str] = ()) -> None:
        self.trained = trained

    @abstractmethod
    def insert(self, network: nn.Module) -> None:
        """Replace layers of a network, in place, by layers with parameters of the adapter."""

    def adapt(self, network: nn.Module) -> None:
        """Add the adapter to a network, in place, and freeze all parameters but its own and those of `trained`.

        Raises:
            ValueError: a pattern matches nothing, or the network has an adapter already.
        """
        name = f"adapter: {type(self).__name__}"
        if list_adapter_parameters(network):
            raise ValueError(f"{name} is for a network without an adapter, but this one has one; call merge_adapters")
        own = dict(network.named_parameters(remove_duplicate=False))
        kept = match_names(f"{name}: trained", self.trained, own, "parameter")
        self.insert(network)
        for parameter in own.values():
            parameter.requires_grad_(False)
        for each in kept:
            own[each].requires_grad_(True)


AdapterFactory = Callable[[], Adapter]
"""Called without arguments."""
