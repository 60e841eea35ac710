import copy
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xt.exchange.adapters.adapter_tensors import (
    CONFIG,
    PREFIX,
    TENSORS,
    LowRankPair,
    export_pairs,
    list_modules,
    shorten,
)
from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.folders.json_files import write_json
from lightning_xt.exchange.folders.safetensors_files import write_tensor_file
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.formats.hugging_face import HuggingFace
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.exchange.tensor_rules import Rule, TensorRule, export_tensors
from lightning_xt.exchange.transformers_scorer import load_with_transformers, make_transformers_scorer
from lightning_xt.exchange.verification import Verification
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters


class PEFT(ExportFormat):
    """Adapter of a model of `transformers`, for the library peft: without the weights of the model."""

    name: ClassVar = "peft"
    summary: ClassVar = "peft, vLLM and others; the adapter alone, of a model that hf takes"
    keeps_adapter: ClassVar = True

    def check(self, model: ExportedModel) -> None:
        if not list_adapter_parameters(model.network):
            raise MisfitError(
                f"{model.name} has no adapter, which --format peft writes; fine-tune it with --model.adapter LoRA, or "
                "use --format hf"
            )
        fit_shape(model.merge())
        self._list_saved(model)

    def write(self, model: ExportedModel, folder: Path) -> None:
        rules, pairs, saved = self._list_rules(model), self._list_pairs(model), self._list_saved(model)
        tensors: dict[str, Tensor] = {}
        for name, pair in pairs.items():
            tensors |= {f"{PREFIX}{name}.lora_A.weight": pair.down, f"{PREFIX}{name}.lora_B.weight": pair.up}
        if saved:
            base = export_tensors(_remove_adapter(model).network, rules)
            own = {name: each for name, each in base.items() if _find_module(name) in saved}
            tensors |= {f"{PREFIX}{name}": each for name, each in own.items()}
        write_tensor_file({name: each.to(model.options.dtype) for name, each in tensors.items()}, folder / TENSORS)
        write_json(folder / CONFIG, self._make_config(model, rules, pairs, saved))

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        try:
            import peft
            import transformers  # noqa: F401
        except ImportError as error:
            return Verification(f"{error.name} is not installed; pip install {error.name}, and export again")
        with tempfile.TemporaryDirectory() as base:
            HuggingFace().write(_remove_adapter(model), Path(base))
            network = load_with_transformers(model, base)
        with warnings.catch_warnings():
            # Of the use that one of the two libraries makes of the other.
            warnings.simplefilter("ignore", FutureWarning)
            network = peft.PeftModel.from_pretrained(network, folder, autocast_adapter_dtype=False).eval()
        return compare_logits(model, make_transformers_scorer(network), f"peft {peft.__version__}")

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        # The tokenizer is that of the model that the adapter changes.
        return []

    def _list_rules(self, model: ExportedModel) -> list[Rule]:
        shape, settings = fit_shape(model.merge())
        return shape.list_rules(settings)

    def _list_pairs(self, model: ExportedModel) -> dict[str, LowRankPair]:
        return export_pairs(model.network, self._list_rules(model))

    def _list_saved(self, model: ExportedModel) -> list[str]:
        """List the last names of the modules there with other parameters that train, PEFT's modules_to_save."""
        adapted = {*list_adapter_parameters(model.network)}
        trained = {name for name, each in model.network.named_parameters() if each.requires_grad} - adapted
        rules = [rule for rule in self._list_rules(model) if isinstance(rule, TensorRule) and rule.ours in trained]
        names = [name for rule in rules for name in rule.theirs]
        if alone := [name for name in names if not _find_module(name)]:
            raise MisfitError(
                f"{model.name} trains {alone[0]}, a parameter outside of modules, which PEFT cannot hold; merge it: "
                "--format hf"
            )
        saved = list(dict.fromkeys(map(_find_module, names)))
        if both := [name for name in self._list_pairs(model) if name.rpartition(".")[2] in saved]:
            raise MisfitError(
                f"{model.name} trains the weights of {both[0]} and an adapter of it, which PEFT cannot hold; merge it: "
                "--format hf"
            )
        return saved

    def _make_config(
        self, model: ExportedModel, rules: list[Rule], pairs: dict[str, LowRankPair], saved: list[str]
    ) -> dict[str, Any]:
        ranks = {name: pair.rank for name, pair in pairs.items()}
        rank = min(ranks.values())
        scale = next(iter(pairs.values())).scale
        dropout = ((model.config.get("adapter") or {}).get("init_args") or {}).get("dropout", 0.0)
        others = {name: each for name, each in ranks.items() if each != rank}
        adapted = {f"{name}.weight" for name in pairs}
        return {
            "peft_type": "LORA",
            "task_type": "SEQ_2_SEQ_LM" if model.kind == "Seq2Seq" else "CAUSAL_LM",
            "base_model_name_or_path": None,
            "inference_mode": True,
            "r": rank,
            "lora_alpha": scale * rank,
            "rank_pattern": others,
            "alpha_pattern": {name: scale * each for name, each in others.items()},
            "lora_dropout": dropout,
            "target_modules": shorten(pairs, list_modules(rules)),
            "modules_to_save": saved or None,
            "fan_in_fan_out": any(isinstance(r, TensorRule) and r.transposed and adapted & {*r.theirs} for r in rules),
            "bias": "none",
            "use_rslora": False,
        }


def _find_module(name: str) -> str:
    """Return the last name of the module of a parameter; empty for one that the whole model has."""
    return name.rpartition(".")[0].rpartition(".")[2]


def _remove_adapter(model: ExportedModel) -> ExportedModel:
    """Return the model without the change of its adapter."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name in list_adapter_parameters(module):
            module.get_parameter(name).zero_()
    return replace(model, module=module).merge()
