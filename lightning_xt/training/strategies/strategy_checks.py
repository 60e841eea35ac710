"""Strategies and plugins of Lightning that a run cannot use."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.plugins import DeepSpeedPrecision, FSDPPrecision
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceXLAStrategy,
    Strategy,
    StrategyRegistry,
    XLAStrategy,
)

from lightning_xt.system.imports import imported
from lightning_xt.training.strategies.fsdp2 import FSDP2


def check_strategy(strategy: Strategy | type, start_method: str = "popen") -> None:
    """Raise a ValueError for a strategy of Lightning that checkpoints, decoding and the end of a command cannot use."""
    kind = strategy if isinstance(strategy, type) else type(strategy)
    if issubclass(kind, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)) and not issubclass(kind, FSDP2):
        raise ValueError(
            f"--trainer.strategy is {kind.__name__}, whose shards neither checkpoints nor decoding can use here; use "
            "--trainer.strategy FSDP2, or ddp"
        )
    if issubclass(kind, (XLAStrategy, SingleDeviceXLAStrategy)):
        raise ValueError(
            f"--trainer.strategy is {kind.__name__}, but runs use CPUs, and GPUs of CUDA or Apple; omit it, or use ddp"
        )
    if start_method != "popen":
        raise ValueError(
            f"--trainer.strategy is {kind.__name__} with start_method {start_method}, which leaves the first process "
            "without the run: it could neither report it nor stop it in good order; use --trainer.strategy ddp"
        )


def check_strategy_option(option: Any) -> None:
    """Raise a ValueError for the value of --trainer.strategy, a name or a class with options, that cannot be used."""
    if not isinstance(option, str):
        kind, options = imported(option.class_path), option.get("init_args") or {}
    elif option.lower() in StrategyRegistry:
        kind, options = (StrategyRegistry[option.lower()][name] for name in ("strategy", "init_params"))
    else:
        return
    if kind is not None:
        check_strategy(kind, options.get("start_method") or "popen")


def check_plugins(plugins: Sequence[Any]) -> None:
    """Raise a ValueError for a plugin of a strategy that is refused."""
    for each in plugins:
        if isinstance(each, (DeepSpeedPrecision, FSDPPrecision)):
            raise ValueError(
                f"trainer.plugins: {type(each).__name__} is part of a strategy that cannot be used here; set "
                "--trainer.precision"
            )
