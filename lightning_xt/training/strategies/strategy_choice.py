"""Which of the strategies that Lightning has go with what is built here."""

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from lightning_xt.training.strategies.fsdp2 import FSDP2


def check_strategy(strategy: Strategy) -> None:
    """Refuses those that share weights out in a way that checkpoints, decoding and optimizers here do not know.

    Raises:
        ValueError: it is one of them.
    """
    theirs = isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy))
    if theirs and not isinstance(strategy, FSDP2):
        raise ValueError(
            f"--trainer.strategy is {type(strategy).__name__}, whose shares of the weights neither checkpoints nor "
            "decoding know here; use --trainer.strategy FSDP2, or ddp"
        )
