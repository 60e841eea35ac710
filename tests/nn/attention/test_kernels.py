"""Arguments of kernels on CUDA, by fake tensors, and the shapes that flex_attention gets."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from catalogue import CONTEXT, VOCAB, attention, attention_layers, context_options, crop, decoder, randomise
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from lightning_xt.core import block_masks
from lightning_xt.core.block_masks import BLOCK
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.kernels import flex
from lightning_xt.nn.attention.kernels.backends import attend
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.forgetting import Forgetting

HEADS, KV_HEADS, N = 4, 2, 7


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Record the calls of scaled_dot_product_attention, which computes nothing."""
    calls: list[dict[str, Any]] = []

    def watch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *args: Any, **options: Any) -> Tensor:
        cudnn = torch.backends.cuda.cudnn_sdp_enabled()
        calls.append({"kv_heads": (k.shape[1], v.shape[1]), "masked": mask is not None, "cudnn": cudnn, **options})
        return q

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watch)
    with FakeTensorMode():
        yield calls


def attend_on_cuda(dtype: torch.dtype, *, window: int | None = None, position: Any = None) -> Tensor:
    layer = Attention(LayerShape(dim=24), heads=HEADS, kv_heads=KV_HEADS, position=position)
    # Masks stay on the CPU: torch without CUDA cannot index fake tensors.
    at = Where.from_sequence(N, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu")).limit_window(
        window
    )
    scoring = Scoring(layer.score, layer.position, at, (), layer.normalizer, at, 0.5, 0.0)
    q = torch.empty(2, HEADS, N, 6, dtype=dtype, device="cuda")
    kv = torch.empty(2, KV_HEADS, N, 6, dtype=dtype, device="cuda")
    return attend("fused", q, kv, kv, scoring)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("options", [{"window": 3}, {"position": ALiBi}], ids=["mask", "bias"])
def test_masks_on_cuda_exclude_cudnn_and_have_a_key_for_every_head(
    calls: list[dict[str, Any]], options: dict[str, Any], dtype: torch.dtype
) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    out = attend_on_cuda(dtype, **options)
    assert out.shape == (2, HEADS, N, 6) and out.is_cuda
    (call,) = calls
    assert call["masked"] and not call["cudnn"] and not call["enable_gqa"] and call["kv_heads"] == (HEADS, HEADS)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize(
    ("dtype", "heads"), [(torch.bfloat16, KV_HEADS), (torch.float16, KV_HEADS), (torch.float32, HEADS)]
)
def test_the_plain_triangle_on_cuda_keeps_groups_of_heads_where_flash_takes_them(
    calls: list[dict[str, Any]], dtype: torch.dtype, heads: int
) -> None:
    attend_on_cuda(dtype)
    (call,) = calls
    assert not call["masked"] and call["is_causal"] and call["kv_heads"] == (heads, heads)
    assert call["enable_gqa"] == (heads < HEADS) and call["cudnn"] == torch.backends.cuda.cudnn_sdp_enabled()


@torch.no_grad()
def test_on_a_cpu_groups_of_heads_stay_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional,
        "scaled_dot_product_attention",
        lambda q, k, *args, **options: seen.append((k.shape[1], options["enable_gqa"])) or real(q, k, *args, **options),
    )
    randomise(lambda: decoder(attention=attention(kv_heads=KV_HEADS, window=3)))(torch.randint(0, VOCAB, (2, N)))
    assert seen == [(KV_HEADS, True)] * 2


@pytest.fixture
def flex_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the lengths of queries, keys, values and block mask of each call of flex_attention.

    Torch's implementation is traced, which the run-time checks of shapes do not allow; `traced_laws.py` runs it.
    """
    shapes: list[tuple[int, ...]] = []

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, score_mod: Any, block_mask: Any, scale: float, enable_gqa: bool
    ) -> Tensor:
        shapes.append((q.shape[-2], k.shape[-2], v.shape[-2], *block_mask.seq_lengths))
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        at = [torch.arange(n).view([-1 if axis == each else 1 for each in range(4)]) for axis, n in enumerate(sizes)]
        scores = score_mod(q @ k.mT * scale, *at)
        return scores.masked_fill(~block_mask.mask_mod(*at), float("-inf")).softmax(dim=-1) @ v

    monkeypatch.setattr(flex, "flex_attention", attend)
    return shapes


@pytest.mark.parametrize("n", [1, BLOCK - 3, BLOCK, BLOCK + 2])
@torch.no_grad()
def test_lengths_reach_flex_attention_as_multiples_of_a_block(n: int, flex_shapes: list[tuple[int, ...]]) -> None:
    model = randomise(lambda: decoder(attention=attention(position=Forgetting, memory=3, kv_heads=KV_HEADS)))
    tokens = torch.randint(0, VOCAB, (2, n))
    expected = model(tokens)
    for layer in attention_layers(model):
        layer.backend = "flex"
    torch.testing.assert_close(model(tokens), expected, rtol=1e-6, atol=1e-6)
    queries, keys = (BLOCK * -(-length // BLOCK) for length in (n, n + 3))
    assert flex_shapes == [(queries, keys, keys, queries, keys)] * 2


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the masks that are built, "blocks" or "dense"; the latter by every call of their formula."""
    made: list[str] = []
    create, visible = block_masks.create_block_mask, Where.is_visible
    monkeypatch.setattr(block_masks, "create_block_mask", lambda *a, **o: made.append("blocks") or create(*a, **o))
    monkeypatch.setattr(Where, "is_visible", lambda self, *at: made.append("dense") or visible(self, *at))
    return made


@pytest.mark.parametrize(("backend", "kind"), [("flex", "blocks"), ("fused", "dense")])
@torch.no_grad()
@pytest.mark.usefixtures("flex_shapes")
def test_all_layers_share_one_mask(backend: str, kind: str, masks: list[str]) -> None:
    """One mask serves all layers, in self-attention and in cross-attention, with a cache and without."""
    own = attention(window=3, position=None)
    model = randomise(lambda: decoder(**context_options(position=None), attention=own))
    for layer in attention_layers(model):
        layer.backend = backend
    tokens = torch.randint(0, VOCAB, (2, N))
    real = torch.tensor([[True, False, True], [True, True, True]])
    inputs = Inputs(context=torch.randn(2, 3, CONTEXT).double(), context_mask=real)
    expected = model(tokens, inputs=inputs)
    assert masks.count(kind) == 2
    cache = model.new_cache(2, N)
    masks.clear()
    first = model(tokens[:, :5], inputs=crop(inputs, slice(0, 5)), cache=cache)
    assert masks.count(kind) == 2
    masks.clear()
    last = model(tokens[:, 5:], inputs=crop(inputs, slice(5, N)), cache=cache)
    assert masks.count(kind) == 2
    torch.testing.assert_close(torch.cat((first, last), dim=1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("widths", [(6, 4), (4, 6)], ids=["narrow values", "wide values"])
def test_heads_of_two_widths_have_the_flash_kernel_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, widths: tuple[int, int]
) -> None:
    layer, at = (
        Attention(LayerShape(dim=24), heads=HEADS),
        Where.from_sequence(N, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu")),
    )
    scoring = Scoring(layer.score, None, None, (), layer.normalizer, at, 0.5, 0.0)
    q, k = torch.randn(2, 2, HEADS, N, widths[0]).unbind()
    v, real, seen = torch.randn(2, HEADS, N, widths[1]), functional.scaled_dot_product_attention, []

    def watch(q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.append((q.shape[-1], k.shape[-1], v.shape[-1]))
        return real(q, k, v, *args, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watch)
    torch.testing.assert_close(attend("fused", q, k, v, scoring), attend("explicit", q, k, v, scoring))
    assert seen == [(6, 6, 6)]
