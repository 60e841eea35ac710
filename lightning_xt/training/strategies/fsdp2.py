from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch.optim import Optimizer

from lightning_xt.training.compilation import WITH_GRAPHS
from lightning_xt.training.strategies.sharding import full_state, gather, reshard, shard_optimizer_state

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")
"""Those of which Lightning knows how to train shares in."""


class FSDP2(ModelParallelStrategy):
    """Keeps a share of the weights, their gradients and the optimizer's state in each process.

    While a sublayer is used its weights come together. A validation, test or prediction has all weights in each
    process, so that none waits for another while it decodes. Checkpoints are those of one process.

    Args:
        data_parallel_size: processes with batches of their own. None = all, the only choice.
        tensor_parallel_size: processes that share a batch; 1 is the only choice.
        process_group_backend: what processes talk by. None = nccl on GPUs, gloo elsewhere.
        timeout: how long one waits for the others.
    """

    def __init__(
        self,
        data_parallel_size: int | None = None,
        tensor_parallel_size: int = 1,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        if tensor_parallel_size != 1:
            raise ValueError(
                f"--trainer.strategy.tensor_parallel_size is {tensor_parallel_size}, but FSDP2 gives each process a "
                "batch of its own; leave it away"
            )
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._asked = data_parallel_size

    def setup_environment(self) -> None:
        """Lets the processes meet.

        Raises:
            ValueError: an option does not go with shares.
        """
        world = self.num_nodes * self.num_processes
        if self._asked not in (None, world):
            raise ValueError(
                f"--trainer.strategy.data_parallel_size is {self._asked}, but FSDP2 shares out over all processes, of "
                f"which there are {world}; leave it away"
            )
        if self.precision_plugin.precision not in PRECISIONS:
            raise ValueError(
                f"--trainer.precision is {self.precision_plugin.precision}, which FSDP2 does not know; use "
                f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, or --trainer.strategy ddp"
            )
        options = getattr(self._module, "compile_options", False)
        mode = options.get("mode") if isinstance(options, dict) else None
        if mode in WITH_GRAPHS:
            raise ValueError(
                f"--model.compile.mode is {mode}, whose CUDA graphs need weights that stay in place, but FSDP2 gathers "
                "them again and again; choose max-autotune-no-cudagraphs or omit it"
            )
        # Lightning's choice would be the number of nodes: gradients of the processes of one would not meet.
        self._data_parallel_size = world
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        self._module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            # After those that bring the groups of another version into the order of this one.
            handle = optimizer.register_load_state_dict_pre_hook(_load_shards)
            try:
                optimizer.load_state_dict(state)
            finally:
                handle.remove()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        reshard(self._module)
        return full_state(self._module.state_dict(), self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        reshard(self._module)
        bare = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return full_state(bare.state_dict(), self.is_global_zero)

    def on_validation_start(self) -> None:
        gather(self._module)

    def on_validation_end(self) -> None:
        reshard(self._module)

    def on_test_start(self) -> None:
        gather(self._module)

    def on_test_end(self) -> None:
        reshard(self._module)

    def on_predict_start(self) -> None:
        gather(self._module)

    def on_predict_end(self) -> None:
        reshard(self._module)

    @property
    def _module(self) -> Any:
        # Lightning says that there may be none, but not when any of these is called.
        return self.lightning_module


def _load_shards(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return shard_optimizer_state(state, optimizer.param_groups)


# The name by which the Trainer knows it; capital letters are the same to it.
StrategyRegistry.register("fsdp2", FSDP2, description=FSDP2.__doc__ or "", override=True)
