"""Check of the strategy: Lightning has some that do not work here."""

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from lightning_xt.training.strategies.fsdp2 import FSDP2


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy whose shards checkpoints, decoding and optimizers here cannot use.

    Raises:
        ValueError: the strategy is such a one.
    """
    theirs = isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy))
    if theirs and not isinstance(strategy, FSDP2):
        raise ValueError(
            f"--trainer.strategy is {type(strategy).__name__}, whose shards neither checkpoints nor decoding can "
            "use here; use --trainer.strategy FSDP2, or ddp"
        )
