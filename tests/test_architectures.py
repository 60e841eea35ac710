"""Whole architectures: each builds after a recipe, learns, states its source, and has the published size."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from architecture_list import architectures_page, read_head
from reference_pages import prose
from test_configs import CONFIGS, QUICKSTART, TINY, TINY_PAIRS, merge

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.seq2seq import Seq2Seq

FILES = sorted((CONFIGS / "architectures").glob("*.yaml"))
RECIPES = sorted(file for file in (CONFIGS / "language").glob("*.yaml") if file.stem != "masked")
COPY = CONFIGS / "translation" / "copy.yaml"


def take_attention(**options: Any) -> dict[str, Any]:
    return {"class_path": "Attention", "init_args": options}


def take_gated(hidden_dim: int) -> dict[str, Any]:
    return {"class_path": "SwiGLU", "init_args": {"hidden_dim": hidden_dim}}


EXPERTS = {
    "class_path": "MixtureOfExperts",
    "init_args": {"expert": take_gated(1408), "num_experts": 64, "top_k": 6, "shared": take_gated(2816)},
}
GEMMA = {"heads": 8, "kv_heads": 4, "dim_head": 256}
MAMBA = {"class_path": "Mamba2", "init_args": {"heads": 80, "dim_head": 64}}
SIZES: dict[str, tuple[int, dict[str, Any], int, int]] = {
    "gpt2": (50_257, {"dim": 768, "depth": 12, "attention": {"heads": 12}}, 124_439_808, 0),
    "llama3": (
        128_256,
        {"dim": 4096, "depth": 32, "attention": {"heads": 32, "kv_heads": 8}, "feedforward": {"hidden_dim": 14_336}},
        8_030_261_248,
        0,
    ),
    "qwen3": (
        151_936,
        {
            "dim": 1024,
            "depth": 28,
            "attention": {"heads": 16, "kv_heads": 8, "dim_head": 128},
            "feedforward": {"hidden_dim": 3072},
        },
        596_049_920,
        0,
    ),
    # 590,118,912 of the table and 2,024,517,888 others in the report.
    "gemma2": (
        256_128,
        {
            "dim": 2304,
            "depth": 26,
            "attention": {"recipes": [take_attention(**GEMMA, window=4096), take_attention(**GEMMA)]},
            "feedforward": {"hidden_dim": 9216},
        },
        2_614_636_800,
        0,
    ),
    "deepseek_v2": (
        102_400,
        {
            "dim": 2048,
            "depth": 27,
            "attention": {"heads": 16, "dim_head": 128, "projection": {"latent_dim": 512, "rotary_dim": 64}},
            "feedforward": {"recipes": [take_gated(10_944), *[EXPERTS] * 26]},
        },
        15_706_484_224,
        0,
    ),
    # A gain for each feature of a head, of queries and of keys, in place of one for each feature of all heads.
    "olmo2": (
        100_352,
        {"dim": 4096, "depth": 32, "attention": {"heads": 32}, "feedforward": {"hidden_dim": 11_008}},
        7_298_617_344,
        -2 * 32 * (4096 - 128),
    ),
    "nanochat": (65_536, {"dim": 1280, "depth": 20, "attention": {"heads": 10}}, 560_988_160, 0),
}
"""Vocabulary and sizes of an original, its published number of parameters, and how many more ours has."""
ROUNDED: dict[str, tuple[int, dict[str, Any], float]] = {
    "palm": (
        256_000,
        {
            "dim": 4096,
            "depth": 32,
            "attention": {"heads": 16, "kv_heads": 1, "dim_head": 256},
            "feedforward": {"hidden_dim": 16_384},
        },
        8.63,
    ),
    "transformer_xl": (256, {"dim": 512, "depth": 12, "attention": {"heads": 8}}, 0.041),
    "mamba2_hybrid": (
        50_288,
        {
            "dim": 2560,
            "depth": 64,
            "attention": {"recipes": [*[MAMBA] * 9, take_attention(heads=30, dim_head=128)]},
        },
        2.7,
    ),
}
"""Vocabulary and sizes of an original, and its published number of parameters, in billions."""


def read(file: Path) -> dict[str, Any]:
    """Return the options of a model in a config."""
    return yaml.safe_load(file.read_text())["model"]["init_args"]


def is_pair(file: Path) -> bool:
    """Return True for an encoder-decoder."""
    return "encoder" in read(file)


def build(file: Path) -> TransformerModule:
    """Build an architecture after a recipe."""
    if is_pair(file):
        return Seq2Seq.from_config(merge(read(COPY), read(file)))
    return LanguageModel.from_config(merge(read(QUICKSTART), read(file)))


def draw_loss(module: TransformerModule) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    src, tgt = (torch.randint(3, 19, (2, n), generator=generator) for n in (17, 13))
    return module(src, tgt) if isinstance(module, Seq2Seq) else module(src)


def resize(options: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return options with other sizes, which stand in the options of their class."""
    changed = dict(options)
    for name, value in sizes.items():
        before = changed.get(name)
        if not isinstance(value, dict):
            changed[name] = value
        elif isinstance(before, dict) and "class_path" in before:
            changed[name] = {**before, "init_args": resize(before.get("init_args", {}), value)}
        elif isinstance(before, str):
            changed[name] = {"class_path": before, "init_args": value}
        else:
            changed[name] = resize(before or {}, value)
    return changed


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_architecture_is_small_and_takes_a_step(file: Path) -> None:
    module = build(file)
    assert 0.4e6 < count(module) < 2e6
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    module.eval()
    before = draw_loss(module)
    before.backward()
    optimizer.step()
    assert 0 < before.item() < 30
    assert draw_loss(module) < before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_architecture_states_its_source_sizes_and_differences(file: Path) -> None:
    lines = file.read_text().split("model:")[0].splitlines()
    assert all(line.startswith("# ") and len(line) <= 120 for line in lines)
    assert lines[0].endswith(".") and ": " in lines[0]
    words = [line.removeprefix("# ").split(":")[0].split()[0] for line in lines[1:] if not line.startswith("#   ")]
    assert words == ["Source", "Sizes", "Differences"]
    assert re.search(r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|github\.com/|aclanthology\.org/)", file.read_text())
    # The model's part only, so that any recipe can be its base.
    assert list(yaml.safe_load(file.read_text())) == ["model"]


def count_original(name: str, vocabulary: int, sizes: dict[str, Any]) -> int:
    """Return the parameters of an architecture at the sizes of its original, without memory for them."""
    options = read(CONFIGS / "architectures" / f"{name}.yaml")["decoder"]
    with torch.device("meta"):
        vocab = {"source": vocabulary, "target": vocabulary}
        return count(LanguageModel.from_config({"decoder": resize(options, sizes), "vocab": vocab}))


@pytest.mark.parametrize(
    # Thousands of experts.
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "deepseek_v2" else ()) for name in SIZES],
)
def test_an_original_has_its_published_number_of_parameters(name: str) -> None:
    vocabulary, sizes, published, more = SIZES[name]
    text = re.sub(r"\n# +", " ", (CONFIGS / "architectures" / f"{name}.yaml").read_text())
    assert f"{published:,} parameters" in text
    assert count_original(name, vocabulary, sizes) == published + more


@pytest.mark.parametrize("name", ROUNDED)
def test_an_original_has_about_its_published_number_of_parameters(name: str) -> None:
    vocabulary, sizes, billions = ROUNDED[name]
    text = re.sub(r"\n# +", " ", (CONFIGS / "architectures" / f"{name}.yaml").read_text())
    said = f"{billions} billion" if billions >= 1 else f"{1000 * billions:.0f} million"
    assert f"{said} parameters" in text
    found = count_original(name, vocabulary, sizes) / 1e9
    assert round(found, len(str(billions)) - 2) == billions


def build_double(name: str, **sizes: Any) -> LanguageModel:
    """Build a tiny architecture in float64, with noise on its parameters."""
    options = resize(read(CONFIGS / "architectures" / f"{name}.yaml")["decoder"], {"dim": 24, "depth": 2, **sizes})
    module = LanguageModel.from_config({"decoder": options, "vocab": {"source": 11, "target": 11}}).double().eval()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


@torch.no_grad()
def test_gpt2_is_the_encoder_layer_of_torch_with_a_causal_mask() -> None:
    torch.manual_seed(0)
    network = build_double("gpt2").decoder
    tokens = torch.randint(0, 11, (2, 7))
    x = network.token_embedding.weight[tokens] + network.embeddings[0].table.weight[:7]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    gelu = partial(torch.nn.functional.gelu, approximate="tanh")
    for layer in range(2):
        attention, feedforward = (network.stack.sublayers[f"{layer}_{kind}"] for kind in ("attention", "feedforward"))
        theirs = torch.nn.TransformerEncoderLayer(
            24, 4, 96, dropout=0.0, activation=gelu, batch_first=True, norm_first=True, dtype=torch.float64
        ).eval()
        names = {
            "self_attn.in_proj": attention.branch.projection.to_qkv,
            "self_attn.out_proj.": attention.branch.output_projection.to_out,
            "linear1.": feedforward.branch.feedforward.to_hidden,
            "linear2.": feedforward.branch.feedforward.to_out,
        }
        state = {
            f"{name if name.endswith('.') else name + '_'}{kind}": getattr(part, kind)
            for name, part in names.items()
            for kind in ("weight", "bias")
        }
        for name, part in (("norm1", attention), ("norm2", feedforward)):
            norm = part.placement.norm_before
            state |= {f"{name}.weight": norm.gain, f"{name}.bias": norm.bias}
        theirs.load_state_dict(state)
        x = theirs(x, src_mask=mask)
    norm = network.stack.output_norm
    x = torch.nn.functional.layer_norm(x, (24,), norm.gain, norm.bias, 1e-5)
    torch.testing.assert_close(network(tokens), x @ network.token_embedding.weight.T, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_llama3_is_its_formula() -> None:
    """Complex numbers rotate pairs of features, as in the released code, one head and one token at a time."""
    torch.manual_seed(0)
    network = build_double("llama3", feedforward={"hidden_dim": 10}).decoder
    tokens = torch.randint(0, 11, (1, 5))
    x = network.token_embedding.weight[tokens[0]]
    angles = torch.arange(5.0)[:, None] * 500_000.0 ** (-torch.arange(3.0, dtype=torch.float64) / 3)
    turns = torch.polar(torch.ones_like(angles), angles)

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * gain

    for layer in range(2):
        attention, feedforward = (network.stack.sublayers[f"{layer}_{kind}"] for kind in ("attention", "feedforward"))
        q, k, v = (norm(x, attention.placement.norm_before.gain) @ attention.branch.projection.to_qkv.weight.T).split(
            (24, 12, 12), dim=-1
        )
        heads = []
        for head in range(4):
            own_q, own_k = q[:, 6 * head : 6 * head + 6], k[:, 6 * (head // 2) : 6 * (head // 2) + 6]
            rotated = [torch.complex(t[:, :3], t[:, 3:]) * turns for t in (own_q, own_k)]
            scores = (rotated[0] @ rotated[1].conj().T).real / 6**0.5
            weights = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(dim=-1)
            heads.append(weights @ v[:, 6 * (head // 2) : 6 * (head // 2) + 6])
        x = x + torch.cat(heads, dim=-1) @ attention.branch.to_out.weight.T
        maps = feedforward.branch.feedforward
        gate, hidden = (norm(x, feedforward.placement.norm_before.gain) @ maps.to_hidden.weight.T).chunk(2, dim=-1)
        x = x + (gate * gate.sigmoid() * hidden) @ maps.to_out.weight.T
    logits = norm(x, network.stack.output_norm.gain) @ network.head.to_logits.weight.T
    torch.testing.assert_close(network(tokens)[0], logits, rtol=1e-8, atol=1e-8)


def test_the_page_shows_every_architecture_with_its_head_and_options() -> None:
    page = architectures_page()
    for file in FILES:
        (name, text), *others = read_head(file.read_text())
        assert f"\n## {name}\n\n`architectures/{file.name}`: {prose(text)}\n" in page
        assert all(f"\n- {word}: {prose(said)}\n" in page for word, said in others) and len(others) == 3
        assert f"\n```yaml\nmodel:{file.read_text().partition('model:')[2]}```\n" in page


LANGUAGE = [file for file in FILES if not is_pair(file)]


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file.stem == "gpt2" else pytest.mark.slow) for file in LANGUAGE],
)
def test_an_architecture_is_the_same_after_every_recipe(file: Path, capsys) -> None:
    made = []
    for recipe in RECIPES:
        assert main(["fit", "-c", str(recipe), "-c", f"architectures/{file.name}", "--print_config"]) == 0
        made.append(yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["decoder"]["init_args"])
        # The recipe's, which fits its text.
        made[-1].pop("dropout")
        if made[-1]["layout"]["class_path"].endswith("AttentionOnly"):
            made[-1].pop("feedforward")
    assert all(each == made[0] for each in made[1:])


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file.stem == "llama3" else pytest.mark.slow) for file in FILES],
)
def test_the_command_trains_an_architecture_by_its_name(file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    (tmp_path / "tiny.yaml").write_text(TINY_PAIRS if is_pair(file) else TINY)
    recipe = COPY if is_pair(file) else QUICKSTART
    options = ["fit", "-c", str(recipe), "-c", "tiny.yaml", "-c", f"architectures/{file.name}"]
    assert main([*options, *(["--data.validation_size=4"] if is_pair(file) else [])]) == 0
    assert any(line.startswith("val/loss=") for line in capsys.readouterr().out.splitlines())
