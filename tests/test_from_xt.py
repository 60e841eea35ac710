"""`from-xt` prints the config of an architecture of x-transformers, and explains what it cannot read."""

import io
import sys

import pytest
import torch
import yaml
from reference_samples import list_samples, write_model
from test_configs import TINY

from lightning_xt import Decoder, EncoderDecoder, EncoderWithHead
from lightning_xt.cli import main
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.commands.x_transformers.architectures import translate
from lightning_xt.commands.x_transformers.config_text import RECIPES, check, write_config
from lightning_xt.commands.x_transformers.expression import parse
from lightning_xt.commands.x_transformers.reference_options import read_defaults
from lightning_xt.system.shipped_configs import find_config

EXAMPLE = (
    "TransformerWrapper(num_tokens=256, max_seq_len=1024, attn_layers=Decoder(dim=512, depth=6, heads=8, "
    "attn_flash=True, ff_glu=True, rotary_pos_emb=True))"
)
PAIR = (
    "XTransformer(dim=48, enc_num_tokens=11, enc_max_seq_len=32, enc_depth=2, enc_heads=4, dec_num_tokens=11, "
    "dec_max_seq_len=32, dec_depth=3, dec_heads=2, tie_token_emb=True, dec_attn_qk_norm=True, "
    "enc_attn_max_attend_past=7)"
)
MASKED = "TransformerWrapper(num_tokens=256, max_seq_len=64, tie_embedding=True, attn_layers=Encoder(dim=48, depth=2))"
NEUTRAL = {
    "norm_add_unit_offset": "gains do not decay here",
    "layer_integrate_use_softmax": "LayerMixture has neither; integrate_layers says so",
    "verbose": "",
    "attn_flash": "backends give the same numbers",
    "attn_output_proj_depth": "the layers give it",
    "attn_rotate_num_heads": "says nothing without a rotation",
    "attn_learned_value_residual_mix": "the layers give it",
    "attn_qkv_receive_diff_residuals": "the layers give it",
    "attn_data_dependent_alibi_per_row_dim_head": "says nothing by itself",
    "attn_project_out": "True is what is done here",
    "attn_latent_rope_subheads": "says nothing by itself",
    "ff_output_proj_depth": "the layers give it",
    "attn_z_loss_weight": "x-transformers ignores it",
    "next_embed_loss_weight": "says nothing without a head",
}
"""Options that change nothing in a config, and why."""


def run(text, capsys):
    code = main(["from-xt", text])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_example_prints_our_config(capsys):
    code, out, err = run(EXAMPLE, capsys)
    assert code == 0 and err == ""
    assert out.startswith(f"# from: {EXAMPLE}\n# num_tokens=256: the tokenizer of the data decides")
    assert "# train: lightning-xt fit -c configs/language/quickstart.yaml -c FILE\n" in out
    model = yaml.safe_load(out)["model"]
    decoder = model["init_args"]["decoder"]
    assert model["class_path"] == "LanguageModel" and (decoder["dim"], decoder["depth"]) == (512, 6)
    assert decoder["feedforward"]["class_path"] == "GEGLU"
    assert decoder["feedforward"]["init_args"] == {
        "hidden_dim": 2048, "bias": True, "dropout": 0.0, "hidden_norm": None, "hidden_gain": False,
    }  # fmt: skip
    attention = decoder["attention"]["init_args"]
    assert attention["position"] == {"class_path": "Rotary", "init_args": {"rotary_dim": 32}}
    assert attention["dim_head"] == 64 and decoder["norm"] == {"class_path": "LayerNorm", "init_args": {"eps": 1e-5}}
    # Theirs has no positions besides the rotation.
    assert decoder["embeddings"] == []


def test_their_defaults_are_written_out(capsys):
    code, out, _ = run(
        "TransformerWrapper(num_tokens=11, max_seq_len=32, attn_layers=Decoder(dim=48, depth=2))", capsys
    )
    decoder = yaml.safe_load(out)["model"]["init_args"]["decoder"]
    assert code == 0
    assert decoder["embeddings"] == [{"class_path": "LearnedPositions", "init_args": {"max_length": 32}}]
    assert decoder["attention"]["init_args"]["position"] is None
    assert decoder["feedforward"]["init_args"]["bias"] is True
    # 11 tokens, 32 positions; LayerNorms; four maps of 8 heads of 64; a feedforward with biases; a head.
    layer = 4 * 48 * 512 + 2 * 48 * 192 + 192 + 48 + 2 * 48
    network = make_recipe(Decoder, decoder)(11)
    assert sum(each.numel() for each in network.parameters()) == 11 * 48 + 32 * 48 + 2 * layer + 48 + 11 * 48


def test_pairs_and_encoders_build(capsys):
    code, out, err = run(f"AutoregressiveWrapper({PAIR})", capsys)
    assert code == 0
    assert err == (
        "lightning-xt: from-xt: differs: enc_attn_max_attend_past: "
        "the window bounds later tokens too; earlier ones only there\n"
    )
    options = yaml.safe_load(out)["model"]["init_args"]
    network = make_recipe(EncoderDecoder, options)(11, 11)
    assert network.encoder.token_embedding is network.decoder.token_embedding
    crossing = options["decoder"]["cross_attention"]["init_args"]
    assert crossing["position"] is None and crossing["qk_norm"]["init_args"]["scale"] == 10.0
    assert options["encoder"]["attention"]["init_args"]["window"] == 8
    code, out, err = run(MASKED, capsys)
    assert code == 0 and yaml.safe_load(out)["model"]["init_args"]["head"] == {
        "class_path": "TiedHead",
        "init_args": {"scale": None},
    }
    assert make_recipe(EncoderWithHead, yaml.safe_load(out)["model"]["init_args"])(256).head.weight.shape == (257, 48)
    assert err == "" and "configs/language/masked.yaml" in out


def test_what_has_no_counterpart_is_named_once(capsys):
    layers = "Decoder(dim=48, depth=2, attn_onnxable=True, cross_attend=True, cross_attn_selective=True)"
    options = f"num_tokens=11, max_seq_len=0, num_output_heads=2, num_cls_tokens=2, attn_layers={layers}"
    code, out, err = run(f"AutoregressiveWrapper(net=x.TransformerWrapper({options}))", capsys)
    assert code == 0
    comments = [line for line in out.splitlines() if line.startswith("# no counterpart here: ")]
    assert len(comments) == 4 and comments[:2] == [
        "# no counterpart here: attn_onnxable=True: `lightning-xt export --format onnx` needs no option",
        "# no counterpart here: cross_attn_selective=True: it is of self-attention; cross-attention has it not",
    ]
    assert err.count("lightning-xt: from-xt: no counterpart here: ") == 4 and "num_output_heads=2: " in err
    assert yaml.safe_load(out)["model"]["init_args"]["decoder"]["context"] == "GivenContext"


@pytest.mark.parametrize(("owner", "option", "value", "base"), list_samples())
def test_no_option_is_lost(owner, option, value, base):
    before, after = write_model(owner, base), write_model(owner, ", ".join(filter(None, (base, f"{option}={value!r}"))))
    first, second = (write_config(translate(parse(each)), "") for each in (before, after))
    assert (first == second) == (option in NEUTRAL)


def test_texts_come_from_files_and_standard_input(capsys, tmp_path, monkeypatch):
    (tmp_path / "model.txt").write_text(MASKED + "\n")
    expected = run(MASKED, capsys)
    assert run(str(tmp_path / "model.txt"), capsys) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MASKED.encode())))
    assert run("-", capsys) == expected


def test_one_model_among_other_statements_is_read(capsys, tmp_path):
    """The snippets of x-transformers begin with imports and assign the model."""
    call = "TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers=Decoder(dim=8, depth=1, heads=2))"
    before = f"import torch\nfrom x_transformers import TransformerWrapper, Decoder\n\nmodel = {call}\n"
    (tmp_path / "script.py").write_text(before + "x = torch.randint(0, 11, (1, 8))\nmodel(x)\n")
    printed = []
    for text in (call, f"model = {call}", str(tmp_path / "script.py")):
        assert main(["from-xt", text]) == 0
        printed.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")])
    assert printed[0] == printed[1] == printed[2]


def test_help_shows_how_to_train(capsys):
    assert main(["from-xt", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lightning-xt fit -c configs/language/quickstart.yaml -c FILE" in said and "never executed" in said
    assert main(["from_xt", "x"]) == 2
    assert "unknown command 'from_xt'; did you mean from-xt?" in capsys.readouterr().err


def test_shipped_recipes_exist():
    assert all(find_config(each).is_file() for each in RECIPES.values())


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ("language/quickstart.yaml", EXAMPLE),
        pytest.param("language/masked.yaml", MASKED, marks=pytest.mark.slow),
        pytest.param("translation/copy.yaml", PAIR, marks=pytest.mark.slow),
        pytest.param("language/shakespeare.yaml", EXAMPLE, marks=pytest.mark.slow),
        pytest.param("translation/multi30k.yaml", PAIR, marks=pytest.mark.slow),
    ],
)
def test_a_recipe_before_it_changes_no_network(recipe, text, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text(run(text, capsys)[1])
    networks = []
    for first in ([], ["-c", recipe]):
        assert main(["fit", *first, "-c", str(tmp_path / "mine.yaml"), "--print_config"]) == 0
        model = yaml.safe_load(capsys.readouterr().out)["model"]
        networks.append({name: model["init_args"].get(name) for name in ("encoder", "decoder", "head")})
    assert networks[0] == networks[1]


@pytest.mark.slow
def test_a_printed_config_trains(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    text = (
        "TransformerWrapper(num_tokens=256, max_seq_len=32, attn_layers=Decoder(dim=48, depth=2, alibi_pos_bias=True))"
    )
    (tmp_path / "mine.yaml").write_text(run(text, capsys)[1])
    (tmp_path / "tiny.yaml").write_text(TINY.replace("decoder: {dim: 48, depth: 2}", "compile: false"))
    assert main(["fit", "-c", "language/quickstart.yaml", "-c", "mine.yaml", "-c", "tiny.yaml"]) == 0


def test_stored_defaults_are_those_of_the_package():
    pytest.importorskip("x_transformers")
    from reference_samples import read_signatures

    assert read_defaults() == read_signatures()


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "option", "value", "base"), list_samples())
def test_every_option_gives_a_model_of_the_same_size(owner, option, value, base):
    """A model without remarks has as many parameters as theirs."""
    pytest.importorskip("x_transformers")
    from reference_samples import build_theirs

    text = write_model(owner, ", ".join(filter(None, (base, f"{option}={value!r}"))))
    architecture = translate(parse(text))
    check(architecture)
    if not architecture.remarks.missing and not architecture.remarks.differing:
        ours = make_recipe(Decoder, architecture.options["decoder"])(11)
        theirs = build_theirs(text)
        assert theirs is None or sum(map(torch.Tensor.numel, ours.parameters())) == sum(
            map(torch.Tensor.numel, theirs.parameters())
        )
