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
"""Precisions in which Lightning trains shards."""


class FSDP2(ModelParallelStrategy):
    """Fully sharded data parallelism: each process keeps a shard of weights, gradients and optimizer state.

    The weights of a sublayer are gathered while it runs. In a validation, test or prediction each process has all
    weights, so that none waits for another while it decodes. Checkpoints are those of one process.

    Args:
        data_parallel_size: processes with different batches. None = all, the only choice.
        tensor_parallel_size: processes with the same batch; 1 is the only choice.
        process_group_backend: library of communication. None = nccl on GPUs, gloo elsewhere.
        timeout: longest time that a process waits for the others.
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
                f"--trainer.strategy.tensor_parallel_size is {tensor_parallel_size}, but FSDP2 gives each process "
                "another batch; omit the option"
            )
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._asked = data_parallel_size

    def setup_environment(self) -> None:
        """Connect the processes; ValueError if an option does not go with shards."""
        world = self.num_nodes * self.num_processes
        if self._asked not in (None, world):
            raise ValueError(
                f"--trainer.strategy.data_parallel_size is {self._asked}, but FSDP2 shards over all processes, of "
                f"which there are {world}; omit the option"
            )
        if self.precision_plugin.precision not in PRECISIONS:
            raise ValueError(
                f"--trainer.precision is {self.precision_plugin.precision}, which FSDP2 does not support; use "
                f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, or --trainer.strategy ddp"
            )
        options = getattr(self._module, "compile_options", False)
        mode = options.get("mode") if isinstance(options, dict) else None
        if mode in WITH_GRAPHS:
            raise ValueError(
                f"--model.compile.mode is {mode}, whose CUDA graphs need weights that stay in place, but FSDP2 gathers "
                "them again and again; choose max-autotune-no-cudagraphs or omit it"
            )
        # Lightning would take the number of nodes, and processes of one node would not average their gradients.
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
            # After the hooks that bring the groups of another version into the order of this one.
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

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    @property
    def _module(self) -> Any:
        # None only before these hooks are called.
        return self.lightning_module


def _load_shards(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return shard_optimizer_state(state, optimizer.param_groups)


# The Trainer finds it by this name, in capitals too.
StrategyRegistry.register("fsdp2", FSDP2, description=FSDP2.__doc__ or "", override=True)
