"""Tests on a GPU: pytest -m gpu."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import Build, attention, attention_layers, decoder, example, randomise
from lightning.pytorch import Callback, Trainer
from torch._dynamo.utils import counters

from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.text.mapped_tokens import MappedTokens, TokenType
from lightning_xt.data.text.resident import ResidentTokens
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.text.windows import TrainingWindows
from lightning_xt.generation.batching.chunked_prefill import ChunkedPrefill
from lightning_xt.generation.batching.running_batch import RequestState
from lightning_xt.generation.engine import generate, run_requests
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.quantized_weights import Weights, convert_weights
from lightning_xt.generation.models.weight_groups import GroupSize
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.base import PositionFactory
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

wide = partial(attention, dim_head=16)
FLEX: dict[str, Build] = {
    "alibi": lambda: decoder(attention=wide(position=ALiBi)),
    "forgetting": lambda: decoder(attention=wide(position=Forgetting)),
    "relative_bias": lambda: decoder(attention=wide(position=RelativeBias)),
    "soft_cap": lambda: decoder(attention=wide(score_mods=[SoftCap])),
    "window-memory-kv_heads": lambda: decoder(attention=wide(window=33, memory=3, kv_heads=2)),
}


def gradients(model: Decoder, backend: str) -> list[torch.Tensor]:
    tokens, _ = example(2, 257, torch.float32)
    for layer in attention_layers(model):
        layer.backend = backend
    logits = model(tokens.cuda())
    return [logits, *torch.autograd.grad(logits.square().mean(), list(model.parameters()))]


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in FLEX.items()])
def test_compiled_flex_agrees_forward_and_backward(build: Build) -> None:
    model = randomise(build, torch.float32).cuda()
    for actual, expected in zip(gradients(model, "flex"), gradients(model, "explicit"), strict=True):
        assert (actual - expected).norm() <= 1e-2 * expected.norm() + 1e-6


def test_decodes_what_the_cpu_decodes() -> None:
    model = randomise(decoder)
    tokens, _ = example(2, 7)
    expected = generate(model, tokens, 20, temperature=0)
    assert torch.equal(generate(model.cuda(), tokens.cuda(), 20, temperature=0).cpu(), expected)


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_compiled_steps_decode_what_others_do(temperature: float) -> None:
    """Compiled steps decode equal tokens, in rows that end at different times, with more prompts than rows."""
    model = randomise(decoder).cuda()
    compiled = Compiled(model)
    prompts = [example(1, n)[0][0].cuda() for n in (7, 3, 5, 11, 2)]
    requests = [Request(prompt=prompt, max_new_tokens=40, seed=n) for n, prompt in enumerate(prompts)]
    params = SamplingParams(temperature=temperature, end=4, batch=2)
    ours, theirs = run_requests(compiled, requests, params), run_requests(model, requests, params)
    assert [each[0].tokens for each in ours] == [each[0].tokens for each in theirs]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("weights", "group_size"), [("int8", None), ("int8", 32), ("int4", None), ("int4", "row")])
@torch.no_grad()
def test_rounded_weights_score_as_on_the_cpu(weights: Weights, group_size: GroupSize | None, compile: bool) -> None:
    """Rounded weights give the CPU's logits, in prompts and in decode steps; 4-bit matrices use their kernel."""
    model = randomise(lambda: decoder(dim=64, attention=wide()), torch.float32)
    plain, tokens = convert_weights(model, weights, group_size), example(3, 90, torch.float32)[0]
    copied = convert_weights(model.cuda(), weights, group_size)
    layers = [module for module in copied.modules() if isinstance(module, Int4Linear)]
    assert all(module.kernel_codes is not None for module in layers) and bool(layers) == (weights == "int4")
    ours: Any = Compiled(copied) if compile else copied
    caches = [each.new_cache(3, 90) for each in (ours, plain)]
    for first, last in ((0, 87), (87, 88), (88, 89)):
        piece = tokens[:, first:last]
        logits, expected = ours(piece.cuda(), cache=caches[0]).cpu().float(), plain(piece, cache=caches[1]).float()
        assert (logits - expected).norm() <= 3e-2 * expected.norm()


@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize(("wide", "high"), [(64, 16), (100, 17), (512, 512)])
@torch.no_grad()
def test_the_int4_kernel_multiplies_by_the_rounded_matrix(wide: int, high: int, rows: int) -> None:
    layer, x = Int4Linear(torch.nn.Linear(wide, high).cuda()), torch.randn(rows, wide, device="cuda").bfloat16()
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(layer(x).double(), expected, rtol=2**-6, atol=2**-5)


def test_no_step_of_decoding_waits_for_the_device() -> None:
    model = randomise(decoder).cuda()
    requests = [Request(prompt=example(1, 5)[0][0].cuda(), max_new_tokens=40, seed=n) for n in range(3)]
    with torch.inference_mode():
        states = [RequestState(n, each, SamplingParams()) for n, each in enumerate(requests)]
        prefill = ChunkedPrefill(model, states, 64, growing=True, window=None)
        prefill.advance()
        batch = prefill.finish(prefill.logits)
        batch.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                batch.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert len(batch.collect()) == 3 * 22


@pytest.mark.parametrize("position", [Rotary, ALiBi])
@pytest.mark.parametrize("window", [None, 33])
def test_norms_on_queries_and_keys_go_with_every_kernel(position: PositionFactory, window: int | None) -> None:
    model = randomise(lambda: decoder(attention=wide(position=position, window=window, qk_norm=RMSNorm)), torch.float32)
    model, tokens = model.cuda(), example(2, 257, torch.float32)[0].cuda()
    with torch.autocast("cuda", torch.bfloat16):
        logits = model(tokens)
        close = torch.compile(model, dynamic=False)(tokens)
    assert (logits - close).float().norm() <= 2e-2 * logits.float().norm()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("optimizer", "compile"),
    [
        ({"class_path": "MuonAdamW"}, False),
        ({"class_path": "MuonAdamW"}, True),
        ({"class_path": "MuonAdamW"}, {"mode": "reduce-overhead"}),
        ({"class_path": "AdamW", "init_args": {"fused": True}}, False),
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(
    optimizer: dict[str, Any], compile: bool | dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of the Trainer without logging do not wait, with tokens on the device and a moving average."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 400)

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            # The first steps compile and allocate.
            torch.cuda.set_sync_debug_mode("error" if 20 < trainer.global_step < 29 else "default")

        def on_train_end(self, *args: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

    config = {
        "decoder": {"dim": 64, "depth": 2, "attention": {"heads": 2, "qk_norm": "RMSNorm"}},
        "optimizer": optimizer,
        "schedule": "WarmupStableDecay",
        "compile": compile,
    }
    trainer = Trainer(
        max_steps=40,
        max_epochs=-1,
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        log_every_n_steps=40,
        callbacks=[Watch(), ExponentialAverage()],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(LanguageModel.from_config(config), TextFiles("corpus.txt", seq_len=64, batch_size=8))
    assert trainer.global_step == 40


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_windows_are_gathered_on_the_device(kind: TokenType, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, min(np.iinfo(kind).max, 150_000), 997, endpoint=True).astype(kind)
    ids.tofile(tmp_path / "tokens")
    tokens = MappedTokens(tmp_path / "tokens", dtype=kind)
    windows, samples = TrainingWindows(tokens, 7, seed=4), [5, 0, 2**40]
    held = ResidentTokens(tokens, torch.device("cuda"))
    starts = torch.from_numpy(windows.offsets(samples)).cuda()
    assert torch.equal(held.windows(starts, 7).cpu(), windows.__getitems__(samples))


def test_trains_in_bf16() -> None:
    model = randomise(decoder, torch.float32).cuda().train()
    tokens, _ = example(2, 257, torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(tokens.cuda()).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_encoder_decoder_learns_to_copy(tmp_path: Path) -> None:
    data = CopyTask(min_length=4, max_length=8, num_symbols=4, validation_size=64, test_size=64, batch_size=32)
    half = {"dim": 32, "depth": 1, "attention": {"class_path": "Attention", "init_args": {"heads": 2}}}
    across = {"class_path": "Attention", "init_args": {"heads": 2}}
    torch.manual_seed(0)
    model = Seq2Seq.from_config(
        {"vocab": data.vocab, "encoder": half, "decoder": {**half, "cross_attention": across}, "schedule": None}
    )
    trainer = Trainer(
        accelerator="gpu", devices=1, max_steps=50, accumulate_grad_batches=2, logger=False, precision="bf16-mixed",
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path, limit_val_batches=1,
        num_sanity_val_steps=0,
    )  # fmt: skip
    first = float(trainer.validate(model, data, verbose=False)[0]["val/loss"])
    trainer.fit(model, data)
    last = float(trainer.validate(model, data, verbose=False)[0]["val/loss"])
    assert last < 0.8 * first
    src = torch.tensor([[2, 3, 4, 5, 6], [5, 4, 6, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = model.double().cpu().generate(src, src_mask=mask, max_new_tokens=9)
    assert torch.equal(model.cuda().generate(src.cuda(), src_mask=mask.cuda(), max_new_tokens=9).cpu(), expected)


def test_no_compiled_step_skips_its_cuda_graph() -> None:
    """No CUDA graph is skipped; inductor counts skips, such as for a written input that may move."""
    model = randomise(decoder).cuda()
    compiled = Compiled(model)
    counters.clear()
    for n in (3, 5, 40):
        generate(compiled, example(1, n)[0].cuda(), 40, temperature=0)
    assert counters["stats"]["unique_graphs"] > 0
    assert counters["inductor"]["cudagraph_skips"] == 0, counters["inductor"]


@pytest.mark.parametrize("n", [64, 100, 192])
def test_gradients_of_masked_attention_are_finite(n: int) -> None:
    """Gradients are finite at lengths of known NaNs: cuDNN's with a mask, flex_attention's with a bias."""
    for position, backend in ((ALiBi, "fused"), (ALiBi, "flex"), (Rotary, "fused")):
        attend = wide(position=position, window=33, kv_heads=2)
        model = randomise(lambda attend=attend: decoder(attention=attend), torch.bfloat16).cuda()
        for layer in attention_layers(model):
            layer.backend = backend
        model(example(2, n)[0].cuda()).float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
