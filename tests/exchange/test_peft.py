"""LoRA in PEFT's format: the same adapter on the same model, both ways."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from foreign_models import PAIR, SMALL, import_run, save_foreign
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MarianConfig, MarianMTModel

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load
from lightning_xt.exchange.folders import safetensors_files
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters

transformers.utils.logging.disable_progress_bar()
# Of the use that peft makes of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.randint(0, 61, (2, 13), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def score(model: Any) -> Tensor:
    logits: Tensor = model(input_ids=IDS).logits
    return logits


def adapt(model: nn.Module, task_type: str = "CAUSAL_LM", **options: Any) -> Any:
    """Give a model an adapter of PEFT with random matrices."""
    torch.manual_seed(2)
    made = peft.get_peft_model(model, peft.LoraConfig(task_type=task_type, **options)).eval()
    with torch.no_grad():
        for name, each in made.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                each.add_(0.1 * torch.randn_like(each))
    return made


def make_adapter(model: nn.Module, folder: Path, **options: Any) -> Tensor:
    """Save an adapter of PEFT with random matrices, and return the logits of the model with it."""
    made = adapt(model, **options)
    made.save_pretrained(folder)
    return score(made)


def import_adapter(folder: Path, name: str = "adapted") -> Any:
    runs = folder.parent / "runs"
    assert main(["import", str(folder), "--base", str(runs / "imported"), "--name", name, "--output", str(runs)]) == 0
    return load(str(runs / name)).cpu()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"r": 3, "lora_alpha": 5, "target_modules": "all-linear"}, marks=pytest.mark.slow),
        # Queries and values have pairs, keys have none; ranks and scales differ.
        {
            "r": 4,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
            "use_rslora": True,
        },
        pytest.param(
            {"r": 2, "target_modules": ["o_proj"], "modules_to_save": ["lm_head", "input_layernorm"]},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["all-linear", "some", "modules_to_save"],
)
def test_an_adapter_of_peft_gives_the_same_logits_and_goes_back(options: dict[str, Any], tmp_path: Path) -> None:
    base = save_foreign(LlamaConfig(**SMALL), LlamaForCausalLM, tmp_path / "theirs")
    import_run(tmp_path / "theirs", tmp_path / "runs")
    expected = make_adapter(base, tmp_path / "adapter", **options)
    ours = import_adapter(tmp_path / "adapter")
    torch.testing.assert_close(ours.network(IDS), expected, atol=1e-5, rtol=1e-5)
    adapted = {*list_adapter_parameters(ours.network)}
    trained = {name for name, each in ours.network.named_parameters() if each.requires_grad}
    assert adapted and (trained == adapted) == ("modules_to_save" not in options)
    # Back: the command checks it with PEFT.
    run, folder = str(tmp_path / "runs" / "adapted"), tmp_path / "exported"
    assert main(["export", run, "--format", "peft", "--output", str(folder)]) == 0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    found = score(peft.PeftModel.from_pretrained(again, folder).eval())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # Merged, without peft.
    assert main(["export", run, "--format", "hf", "--output", str(tmp_path / "merged")]) == 0
    merged = score(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval())
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-5)


def test_the_names_and_settings_are_those_of_peft(tmp_path: Path) -> None:
    base = save_foreign(LlamaConfig(**SMALL), LlamaForCausalLM, tmp_path / "theirs")
    import_run(tmp_path / "theirs", tmp_path / "runs")
    make_adapter(base, tmp_path / "adapter", r=3, lora_alpha=6, target_modules="all-linear")
    import_adapter(tmp_path / "adapter")
    run = str(tmp_path / "runs" / "adapted")
    assert main(["export", run, "--format", "peft", "--output", str(tmp_path / "exported")]) == 0
    mine, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("exported", "adapter"))
    assert mine.keys() == theirs.keys()
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in mine
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    config = json.loads((tmp_path / "exported" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 6)
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert sorted(config["target_modules"]) == sorted(linear)


def edit(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def rename(folder: Path, old: str, new: str | None) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    names = [name for name in tensors if old in name]
    for name in names:
        value = tensors.pop(name)
        if new is not None:
            tensors[name.replace(old, new)] = value
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def reshape(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {each: torch.ones(shape) if name in each else value for each, value in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def test_adapters_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_foreign(LlamaConfig(**SMALL), LlamaForCausalLM, tmp_path / "theirs")
    import_run(tmp_path / "theirs", tmp_path / "runs")
    make_adapter(base, tmp_path / "adapter", r=2, target_modules=["q_proj"])
    folder, runs = tmp_path / "adapter", tmp_path / "runs"
    command = ["import", str(folder), "--base", str(runs / "imported"), "--output", str(runs), "--name", "bad"]

    def refuse(sentence: str, args: list[str] = command) -> None:
        assert main(args) == 2
        assert sentence in capsys.readouterr().err
        assert not (runs / "bad").exists()

    refuse("holds an adapter of PEFT; name the run of the model that it changes: --base RUN", command[:2])
    refuse("nowhere is not a folder; give an adapter that PEFT has saved", ["import", "nowhere", *command[2:]])
    refuse("--name 'a/b' is not the name of a folder; choose one without /", [*command[:-1], "a/b"])
    refuse("has no adapter, which --format peft writes", ["export", str(runs / "imported"), "--format", "peft"])
    refuse("--call is for weights of x-transformers and --base for an adapter of PEFT", [*command, "--call", "X()"])
    original = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    def restore() -> None:
        for name, content in original.items():
            (folder / name).write_bytes(content)

    for value in ("pissa", "olora", "pissa_niter_4"):
        edit(folder, init_lora_weights=value)
        refuse(f"init_lora_weights is '{value}', with which PEFT changes the base when it loads the adapter; convert")
    restore()
    edit(folder, alpha_pattern={"(a+)+b": 4})
    refuse("alpha_pattern has '(a+)+b', but only names of modules have a counterpart here, not regular expressions")
    edit(folder, alpha_pattern=[4])
    refuse("alpha_pattern is [4], not a mapping; copy it again")
    edit(folder, alpha_pattern={"q_proj": "4"})
    refuse("alpha_pattern: q_proj is '4'; it must be a number above 0")
    edit(folder, alpha_pattern={}, lora_alpha=0)
    refuse("lora_alpha is 0; it must be a number above 0")
    restore()
    for name, shape in (("lora_A", (2, 1)), ("lora_B", (1, 2))):
        reshape(folder, f"layers.0.self_attn.q_proj.{name}", shape)
        refuse("the matrices of model.layers.0.self_attn.q_proj have other sizes than the base")
        restore()
    outside = tmp_path / "elsewhere.safetensors"
    (folder / "adapter_model.safetensors").rename(outside)
    (folder / "adapter_model.safetensors").symlink_to(outside)
    refuse("adapter_model.safetensors is a link out of its folder, which an import does not follow")
    (folder / "adapter_model.safetensors").unlink()
    restore()
    with monkeypatch.context() as changed:
        changed.setattr(safetensors_files, "get_free_memory", lambda: 100)
        refuse("there is not enough memory for weights of")
    edit(folder, use_dora=True)
    refuse("use_dora is True, but only False has a counterpart here")
    restore()
    rename(folder, "layers.0.self_attn.q_proj.lora_B", None)
    refuse("has only one of model.layers.0.self_attn.q_proj.lora_A.weight and lora_B.weight; copy it again")
    restore()
    rename(folder, "q_proj", "qq_proj")
    refuse("changes model.layers.0.self_attn.qq_proj, which the base does not have; name another --base")
    restore()
    rename(folder, "base_model.model.", "other.")
    refuse("which does not begin with base_model.model. as names of PEFT do")
    restore()
    rename(folder, "layers.0.self_attn.q_proj.lora_A.weight", "layers.0.self_attn.q_proj.odd")
    rename(folder, "layers.0.self_attn.q_proj.lora_B.weight", "layers.0.self_attn.q_proj.odder")
    refuse("which has no counterpart here")
    restore()
    (folder / "adapter_model.safetensors").write_bytes(b"no tensors")
    refuse("adapter_model.safetensors cannot be read")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refuse("which is pickled: to load it could run any code")


@pytest.mark.slow
def test_an_adapter_of_marian_gives_the_same_logits_and_goes_back(tmp_path: Path) -> None:
    """Of a model without a bias of the logits, which the other library stores as zeros for each token."""
    sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 3}
    base = save_foreign(
        MarianConfig(**PAIR, **sizes, **heads, forced_eos_token_id=None), MarianMTModel, tmp_path / "theirs"
    )
    import_run(tmp_path / "theirs", tmp_path / "runs")
    pair = {"input_ids": IDS, "decoder_input_ids": IDS[:, :7]}
    made = adapt(base, r=3, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
    made.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = made(**pair).logits
        ours = import_adapter(tmp_path / "adapter")
        torch.testing.assert_close(ours.network(*pair.values()), expected, atol=1e-5, rtol=1e-5)
        run, folder = str(tmp_path / "runs" / "adapted"), tmp_path / "exported"
        assert main(["export", run, "--format", "peft", "--output", str(folder)]) == 0
        again = peft.PeftModel.from_pretrained(MarianMTModel.from_pretrained(tmp_path / "theirs"), folder).eval()
        torch.testing.assert_close(again(**pair).logits, expected, atol=1e-5, rtol=1e-5)
