"""Options of x-transformers that `from-xt` translates together, and combinations that it names."""

import pytest

from lightning_xt.commands.x_transformers.architectures import translate
from lightning_xt.commands.x_transformers.config_text import check
from lightning_xt.commands.x_transformers.expression import parse


def test_values_by_layer_alternate():
    options = (
        "dim=48, depth=4, attn_max_attend_past=(7, None, 7, None), attn_kv_heads=(2, 2, 2, 2), ff_mult=(1, 1, 2, 1)"
    )
    architecture = translate(parse(f"TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder({options}))"))
    attention = architecture.options["decoder"]["attention"]
    assert attention["class_path"] == "Cycle"
    assert [each["init_args"].get("window") for each in attention["init_args"]["recipes"]] == [8, None]
    assert all(each["init_args"]["kv_heads"] == 2 for each in attention["init_args"]["recipes"])
    feedforward = architecture.options["decoder"]["feedforward"]
    assert feedforward["class_path"] == "FeedForwardCycle"
    assert [each["init_args"]["hidden_dim"] for each in feedforward["init_args"]["recipes"]] == [48, 48, 96]
    assert not architecture.remarks.missing


def test_values_by_layer_need_whole_layers():
    options = "dim=48, custom_layers=('a', 'f', 'a'), attn_dropout=(0.5, 0.1)"
    architecture = translate(parse(f"TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder({options}))"))
    assert list(architecture.remarks.missing) == [
        "attn_dropout=(0.5, 0.1): Cycle alternates between whole layers; the first value is taken"
    ]
    assert architecture.options["decoder"]["attention"]["init_args"]["dropout"] == 0.5


@pytest.mark.parametrize(
    ("options", "layout", "depth"),
    [
        ("custom_layers=('a', 'a')", "AttentionOnly", 2),
        ("depth=3, sandwich_coef=1, only_attn=True", "AttentionOnly", 3),
        ("depth=3, sandwich_coef=2", {"class_path": "SandwichOrder", "init_args": {"coefficient": 2}}, 3),
        ("depth=2, weight_tie_layers=True", {"class_path": "Looped", "init_args": {"loops": 2}}, 1),
        ("depth=2, layers_execute_order=(2, 3, 0, 1)", {"class_path": "LayerOrder", "init_args": {"order": [1, 0]}}, 2),
        (
            "depth=2, cross_attend=True, only_cross=True",
            {"class_path": "CustomOrder", "init_args": {"order": "cfcf"}},
            2,
        ),
        (
            "depth=2, cross_attend=True, sandwich_coef=1",
            {"class_path": "CustomOrder", "init_args": {"order": "aacff"}},
            2,
        ),
        ("depth=4, par_ratio=4", {"class_path": "CustomOrder", "init_args": {"order": "affaffff"}}, 6),
    ],
)
def test_orders_are_those_of_x_transformers(options, layout, depth):
    text = f"TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder(dim=48, {options}))"
    architecture = translate(parse(text))
    check(architecture)
    decoder = architecture.options["decoder"]
    assert (decoder["layout"], decoder["depth"]) == (layout, depth)


def test_segments_loops_and_their_training_are_read():
    text = (
        "XLAutoregressiveWrapper(TransformerWrapper(num_tokens=11, max_seq_len=8, max_mem_len=4, shift_mem_down=1, "
        "looped=True, attn_layers=Decoder(dim=48, depth=2, pre_and_post_norm=True)), tbptt_steps=3, ttt_lr=0.1)"
    )
    architecture = translate(parse(text))
    check(architecture)
    decoder = architecture.options["decoder"]
    assert decoder["segments"] == {"class_path": "EnhancedRecurrence", "init_args": {"length": 8, "memory": 4}}
    assert decoder["passes"] == {"class_path": "ExitLoops", "init_args": {"passes": 4}}
    assert architecture.options["objective"]["init_args"]["auxiliaries"] == ["ExitGate"]
    assert list(architecture.remarks.missing) == ["ttt_lr=0.1: out of scope: training at test time"]
    assert any(each.startswith("tbptt_steps: a row trains") for each in architecture.remarks.differing)


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ("residual_attn=True, rotary_pos_emb=True", None),
        ("attn_zero_init_output=True, ff_zero_init_output=True", None),
        ("ff_sublayer_dropout=0.1", "ff_sublayer_dropout: dropout 0.1 is for embeddings and all sublayers at once"),
        ("attn_sublayer_dropout=0.1", "attn_sublayer_dropout: dropout 0.1 is for embeddings and all sublayers at once"),
        (
            "residual_attn=True, rel_pos_bias=True",
            "residual_attn: ResidualScores; biases",
        ),
        (
            "attn_softclamp_logits=True, alibi_pos_bias=True",
            "attn_softclamp_logits: SoftCap; scores are bounded before",
        ),
        (
            "sandwich_norm=True, use_layerscale=True",
            "use_layerscale: it scales the normed output; the norm comes after",
        ),
        ("sandwich_norm=True, pre_norm_has_final_norm=False", "pre_norm_has_final_norm: SandwichNorm norms the output"),
        ("attn_qk_norm=True, attn_num_mem_kv=2", "attn_num_mem_kv: learned keys are not normed by qk_norm"),
        ("heads=1", "attn_project_out: one head is mapped too"),
        ("rotary_pos_emb=True, rotary_emb_dim=7", "rotary_emb_dim: 7 is odd, so one more feature is rotated"),
        ("shift_tokens=4", "shift_tokens: 48 features are not a multiple of 5"),
    ],
)
def test_combinations_that_differ_are_named(options, remark):
    text = f"TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder(dim=48, depth=2, {options}))"
    remarks = translate(parse(text)).remarks
    assert not remarks.missing
    assert [each.startswith(str(remark)) for each in remarks.differing] == [True] * (remark is not None)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (
            "attn_sigmoid=True, attn_hard=True",
            "attn_hard=True: attention has one normalizer, which attn_sigmoid chooses",
        ),
        ("use_rmsnorm=True, use_derf=True", "use_derf=True: a network has one norm, which use_rmsnorm chooses"),
        (
            "gate_residual=True, scale_residual=True",
            "scale_residual=True: a stack has one residual, which gate_residual",
        ),
        ("use_layerscale=True, layer_dropout=0.1", "layer_dropout=0.1: there is one scale"),
        (
            "rotary_pos_emb=True, polar_pos_emb=True",
            "polar_pos_emb=True: x-transformers refuses it next to rotary_pos_emb",
        ),
        ("attn_use_latent_kv=True, attn_kv_heads=2", "attn_use_latent_kv=True: Latent makes keys and values for every"),
        ("layers_execute_order=(0, 2, 1, 3)", "layers_execute_order=(0, 2, 1, 3): LayerOrder calls whole layers"),
        ("shift_tokens=(0, 1, 1, 1)", "shift_tokens=(0, 1, 1, 1): ShiftCycle has one shift a layer"),
        ("only_cross=True", "only_cross=True: there is no cross-attention"),
        ("cross_attn_flash=True", "cross_attn_flash=True: there is no cross-attention"),
        ("ff_glu=True, ff_glu_softclamp=True", "ff_glu_softclamp=True: SiTUGLU bounds a gate with SiLU only"),
        ("causal=True", "causal=True: a `Decoder` is causal, an `Encoder` is not"),
        ("weight_tie_layers=True, macaron=True", "weight_tie_layers=True: there is one layout, which is Macaron"),
    ],
)
def test_combinations_without_a_counterpart_are_named(options, missing):
    text = f"TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder(dim=48, depth=2, {options}))"
    architecture = translate(parse(text))
    check(architecture)
    assert any(each.startswith(missing) for each in architecture.remarks.missing)
