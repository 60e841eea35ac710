"""Compiling the network for training, where a compiler is there."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_xt.data.files.data_folder import cache_folder
from lightning_xt.models.sublayer import Sublayer

WITH_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that record CUDA graphs."""

KEYWORDS = MappingProxyType(
    {
        "mode": (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        "dynamic": (None, True, False),
        "fullgraph": (True, False),
        "disable": (True, False),
        "backend": ("inductor", "eager", "aot_eager", "cudagraphs"),
        "evaluation": (None, True, False),
    }
)
"""Keywords of torch.compile, besides `options`, and their values; and our `evaluation`, which torch does not get."""
OPTIONS = (
    "aggressive_fusion", "combo_kernels", "coordinate_descent_tuning", "cpp.simdlen", "cpp.threads", "epilogue_fusion",
    "fallback_random", "group_fusion", "layout_optimization", "loop_ordering_after_fusion",
    "max_autotune", "max_autotune_gemm", "max_autotune_pointwise", "max_fusion_size", "permute_fusion",
    "reorder_for_locality", "shape_padding", "split_reductions", "triton.cudagraph_trees", "triton.cudagraphs",
)  # fmt: skip
"""Keys of its `options`: numbers and switches, never text, which can reach the command line of a compiler."""


def check_compile_options(options: bool | dict[str, Any]) -> None:
    """Raise a ValueError for keywords of torch.compile that a config may not give."""
    if not isinstance(options, dict):
        return
    for name, value in options.items():
        if name != "options" and name not in KEYWORDS:
            raise ValueError(f"model.compile.{name} is not supported; choose from {', '.join([*KEYWORDS, 'options'])}")
        if name != "options" and not any(value is choice or value == choice for choice in KEYWORDS[name]):
            choices = ", ".join("null" if choice is None else str(choice) for choice in KEYWORDS[name])
            raise ValueError(f"model.compile.{name} is {value!r}; choose from {choices}")
    details = options.get("options")
    if details is not None and not isinstance(details, dict):
        raise ValueError(f"model.compile.options is {details!r}; give a mapping of switches and numbers")
    for name, value in (details or {}).items():
        if name not in OPTIONS:
            raise ValueError(f"model.compile.options.{name} is not supported; choose from {', '.join(OPTIONS)}")
        if not isinstance(value, (bool, int, float)):
            raise ValueError(f"model.compile.options.{name} is {value!r}; it must be true, false or a number")


def refuse_evaluation(options: bool | dict[str, Any], model: str) -> None:
    """Raise a ValueError for `evaluation` in the options of a model whose evaluations are not compiled."""
    if isinstance(options, dict) and options.get("evaluation"):
        raise ValueError(
            f"model.compile.evaluation is true, but evaluations of a {model} are not compiled, because their lengths "
            "vary; omit it"
        )


def compile_forward(
    network: nn.Module,
    options: bool | dict[str, Any],
    device: torch.device,
    accumulated: int = 1,
    sharded: bool = False,
) -> Callable[..., Any] | None:
    """Compile the network's forward for training.

    Only the returned function is compiled. The network stays as it is: its checkpoint keeps its names, and sampling,
    whose lengths change with every call, is not compiled again for each.

    A network that will be sharded is compiled block by block, in place: the hooks that gather the weights of a block
    run between the blocks, where a program of the whole network could not wait for them.

    Args:
        network: to be trained.
        options: keywords of torch.compile; True = none, False = do not compile.
        device: where the network will run.
        accumulated: batches of an optimizer step.
        sharded: True if the weights will be sharded over processes.

    Returns:
        The compiled forward. None if the network is not compiled, or its blocks are.

    Raises:
        ValueError: torch.compile does not take the options, or they do not go with accumulation or checkpointed layers.
    """
    keywords = find_keywords(options, device, "training")
    if keywords is None:
        return None
    if keywords.get("backend") == "eager" and any(block.checkpointed for block in _blocks(network)):
        raise ValueError(
            "model.compile.backend is eager, which draws new random numbers when the backward pass computes the layers "
            "of checkpoint_layers again; choose aot_eager or inductor, or set checkpoint_layers false"
        )
    if keywords.get("backend", "inductor") == "inductor":
        rank_zero_info(
            "compiling the network: the first step takes a minute or more, and less where it was compiled before"
        )
    mode = keywords.get("mode")
    if mode in WITH_GRAPHS and device.type == "cuda" and accumulated > 1:
        raise ValueError(
            f"model.compile.mode is {mode}, whose CUDA graphs would write over the gradients that "
            f"trainer.accumulate_grad_batches {accumulated} adds up; choose max-autotune-no-cudagraphs or omit it"
        )
    try:
        if sharded:
            for block in _blocks(network):
                _compile_block(block, keywords)
            return None
        compiled: Callable[..., Any] = torch.compile(network.forward, **keywords)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"model.compile is {keywords}, which torch.compile does not take: {_first_line(error)}; give true, or "
            "keywords that it has"
        ) from error
    return compiled


def find_keywords(options: bool | dict[str, Any], device: torch.device, use: str) -> dict[str, Any] | None:
    """Return the keywords of torch.compile; None, after a warning, if nothing can be compiled on this device.

    Args:
        options: keywords of torch.compile; True = none, False = do not compile.
        device: where the network will run.
        use: for the warning, such as "training".
    """
    if options is False:
        return None
    keywords = {} if options is True else {name: value for name, value in options.items() if name != "evaluation"}
    if device.type == "cpu" and "mode" not in keywords and keywords.get("backend", "inductor") == "inductor":
        # The compiler's own random numbers are slow on a CPU: a step with dropout takes 1.15 times as long with them.
        keywords["options"] = {"fallback_random": True, **(keywords.get("options") or {})}
    _set_compiler_cache()
    if keywords.get("backend", "inductor") == "inductor" and (obstacle := _find_obstacle(device)) is not None:
        rank_zero_warn(f"model.compile is on, but {obstacle}: {use} without it")
        return None
    return keywords


def release_blocks(network: nn.Module) -> None:
    """Give compiled blocks their own forward again."""
    for block in _blocks(network):
        vars(block).pop("forward", None)


def _blocks(network: nn.Module) -> list[Sublayer]:
    return [module for module in network.modules() if isinstance(module, Sublayer)]


def _compile_block(block: Sublayer, keywords: dict[str, Any]) -> None:
    """Compile a block's forward for training; in evaluation, whose lengths vary, the plain one runs."""
    plain = block.forward
    compiled = torch.compile(plain, **keywords)
    block.forward = lambda *args: (compiled if block.training else plain)(*args)  # type: ignore[method-assign]


def _set_compiler_cache() -> None:
    """Let torch keep compiled code where it survives a restart of the machine, unless the user has named a place."""
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        # Torch falls back to a temporary folder.
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _find_obstacle(device: torch.device) -> str | None:
    """Return why torch.compile does not work on this device, and what to install; None if it works."""
    if not has_compiler(device):
        missing = "Triton" if device.type == "cuda" else "a C++ compiler (g++ or clang++, or the variable CXX)"
        return f"{missing} is not installed"
    try:
        # A compiler may lack headers, which shows only when it runs.
        torch.compile(_sine)(torch.ones(2, device=device))
    except (RuntimeError, OSError) as error:
        way_out = "install g++ and Python's headers (python3-dev), or correct the variable CXX"
        return f"it does not work here ({_first_line(error)}); {way_out}"
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _sine(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


def has_compiler(device: torch.device) -> bool:
    """Return True if the compiler that torch.compile calls on this device is installed."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)
