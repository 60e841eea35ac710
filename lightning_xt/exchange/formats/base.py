"""The contract of an export format."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.tokenizers.exported_tokenizers import compare_tokenizers, open_library
from lightning_xt.exchange.verification import Verification


class ExportFormat(ABC):
    """Format of another library or program, in which a model is written to a folder and checked."""

    name: ClassVar[str]
    """Name on the command line."""
    summary: ClassVar[str]
    """Readers of the format and the models that fit, in a few words."""
    keeps_adapter: ClassVar[bool] = False
    """True if the format holds the adapter of a model; else its weights are merged before."""

    @abstractmethod
    def check(self, model: ExportedModel) -> None:
        """Raise a MisfitError for a model that the format cannot hold, before anything is written."""

    @abstractmethod
    def write(self, model: ExportedModel, folder: Path) -> None:
        """Write the model to an empty folder."""

    @abstractmethod
    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        """Read the folder as others do, and compare logits and greedy tokens with those of the model.

        Raises:
            ValueError: they differ by more than the tolerance.
        """

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        """Read the tokenizers of the folder as others do, and compare ids of texts; return a sentence on each.

        Raises:
            ValueError: the ids differ.
        """
        return compare_tokenizers(model, folder, open_library)
