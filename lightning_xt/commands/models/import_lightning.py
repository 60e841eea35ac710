"""Import of Lightning, and of every variant."""

import logging
import warnings

from lightning_xt.system.garbage import pause_garbage_collection

NO_NEWS = (
    # Our loaders count samples (data/base.py); a resume is exact without a separate state.
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*dataloader.*does not have many workers.*",
    # Runs share nothing; the folder is ours.
    ".*Checkpoint directory .* exists and is not empty.*",
    # Measuring needs none of the callbacks that trained.
    ".*callbacks used to create the checkpoint need to be provided.*",
    # No validation split, as the options say.
    ".*Total length of `list` across ranks is zero.*",
    # The best of another run is not the best of this one.
    ".*The dirpath has changed from.*",
    # Of weights that can be sharded, whether they are or not.
    ".*WeightAveraging doesn't support sharding model layers.*",
    # Prompts carry their ids.
    ".*Couldn't infer the batch indices.*",
    # Steps are logged by their number in the run, not in an epoch.
    ".*is smaller than the logging interval.*",
    # Sublayers change nothing that they are given.
    ".*FSDP2-wrapped module .* returned a view tensor.*",
    # Lightning's own calls of torch and of jsonargparse.
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*lr_scheduler.step\\(\\).*before.*optimizer.step\\(\\).*",
)
"""Warnings of other libraries without use for the user."""
NO_NEWS_LINES = (
    "Tip:",
    "TPU available",
    "HPU available",
    "GPU available: False",
    "Seed set to",
    "`Trainer.fit` stopped",
    # A step is finished first. With a `min_steps` of the user's, `min_epochs` is 1.
    "Trainer was signaled to stop but the required `min_epochs=0`",
    "Restoring states from",
    "Restored all states",
    "Loaded model weights",
    "callbacks returned in `LightningModule.configure_callbacks`",
)
"""First words of Lightning's log lines without use for the user, or of advertisements."""


def import_lightning() -> None:
    """Import Lightning; filter out warnings and log lines without use for the user."""
    with pause_garbage_collection():
        # First, for it imports Lightning without the compiler.
        from lightning_xt.training import lightning_internals

        # Lightning calls what version 5 of jsonargparse removes; we require an earlier one. A user's own are theirs.
        warnings.filterwarnings("ignore", category=lightning_internals.JsonargparseDeprecationWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(lightning|lightning_fabric|torch)\b")
        for pattern in NO_NEWS:
            warnings.filterwarnings("ignore", message=pattern)
        for package in ("fabric", "pytorch"):
            for module in ("rank_zero", "seed"):
                logging.getLogger(f"lightning.{package}.utilities.{module}").addFilter(_is_news)


def import_variants() -> None:
    """Import Lightning and every variant, for commands that list classes; others import what a config names."""
    import_lightning()
    with pause_garbage_collection():
        import lightning_xt
        from lightning_xt.system.discovery import import_submodules

        import_submodules(lightning_xt)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in NO_NEWS_LINES)
