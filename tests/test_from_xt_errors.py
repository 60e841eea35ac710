"""Texts that `from-xt` cannot read end in one sentence each."""

import pytest

from lightning_xt.cli import main

W = "TransformerWrapper(num_tokens=11, max_seq_len=8, attn_layers="
SLOPES = [
    ("alibi_num_heads=9", "alibi_num_heads is 9, which must be from 1 to the heads (4)"),
    ("alibi_num_heads=0", "alibi_num_heads is 0, which must be from 1 to the heads (4)"),
    ("rel_pos_kwargs=dict(slopes=('a', 'b'))", "rel_pos_kwargs has slopes ('a', 'b'), which must be numbers"),
    ("rel_pos_kwargs=dict(slopes=(1, 1, 1, 1, 1))", "rel_pos_kwargs has 5 slopes, which must be 1 to 4, at most one"),
    (
        "alibi_num_heads=2, rel_pos_kwargs=dict(slopes=(1,))",
        "rel_pos_kwargs has 1 slopes, which must be 2, as alibi_num_heads says",
    ),
]
BAD = [
    ("", "the text is empty; give one call, such as"),
    ("nowhere.py", "'nowhere.py' is neither a call nor a file (No such file or directory); give the call of a model"),
    ("TransformerWraper()", "line 1, column 1, 'TransformerWraper()': unknown class 'TransformerWraper'; did you mean"),
    ("Sequential()", "unknown class 'Sequential'; there is AutoregressiveWrapper, TransformerWrapper, XLAuto"),
    ("ViTransformerWrapper()", "ViTransformerWrapper is not read (out of scope: images); give a model without it"),
    ("Decoder(dim=8)", "'Decoder(dim=8)': Decoder is not a whole model; give TransformerWrapper(attn_layers=Decoder("),
    ("(3)", "'(3)' is not a whole model; give a TransformerWrapper or XTransformer"),
    (
        f"m = {W}Decoder(dim=8, depth=1))\nm = {W}Decoder(dim=8, depth=1))",
        "2 statements, which build 2 models by name; give",
    ),
    (
        "import torch\nx = torch.zeros(3)",
        "the text has 2 statements, which build 0 models by name; give one call, such as",
    ),
    ("m = (", "line 1, column 5, near 'm = (': this is not Python ('(' was never closed); give one call, such as"),
    ("TransformerWrapper(num_tokens=256,, max_seq_len=8)", "line 1, column 35"),
    ("TransformerWrapper(\nnum_tokens=n)", "line 2, column 12, 'n': num_tokens has the name n, whose value is unknown"),
    ("TransformerWrapper(256, 1024)", "line 1, column 20, '256': TransformerWrapper has a value without a name; write"),
    (
        "TransformerWrapper(**options)",
        "'options': TransformerWrapper has ** options, which are not read; write them out",
    ),
    (
        "TransformerWrapper(num_tokens=2, num_tokens=2)",
        "TransformerWrapper has the option num_tokens twice; give it once",
    ),
    ("TransformerWrapper(num_tokens=8 * 2)", "'8 * 2': num_tokens is not a literal (a number, a text"),
    ("TransformerWrapper(num_tokens=f'{x}')", "num_tokens is not a literal"),
    (
        "TransformerWrapper(num_tokens=len('ab'))",
        "num_tokens calls len, but nothing is executed; give a literal, or omit",
    ),
    (
        "TransformerWrapper(num_tokens=__import__('os').system('touch x'))",
        "only calls of classes by their name are read",
    ),
    ("TransformerWrapper().cuda()", "only calls of classes by their name are read; give the call of the model alone"),
    (
        "TransformerWrapper(embed_num_tokens={1: 2})",
        "embed_num_tokens has a key that is not a text in quotes; write it so",
    ),
    (f"{W}Decoder(dim=8, depth=1, ff_custom_activation=nn.ReLU(True)))", "ReLU is read without options; omit them"),
    (
        "TransformerWrapper(num_tokens=11, max_seq_len=8)",
        "TransformerWrapper has no attn_layers; give it, such as attn_layers=",
    ),
    ("AutoregressiveWrapper()", "AutoregressiveWrapper has no net; give it, such as net=TransformerWrapper(...)"),
    (f"{W}Decoder(depth=2))", "AttentionLayers has no dim; give it, such as dim=512"),
    (f"{W}Decoder(dim=8))", "AttentionLayers has no depth; give it, such as depth=6"),
    (
        f"{W}Decoder(dim=8, depth=2, rotary_posemb=True))",
        "unknown option of Decoder 'rotary_posemb'; did you mean rotary_pos_emb",
    ),
    (
        f"{W}Decoder(dim=8, depth=2, tie_embedding=True))",
        "'tie_embedding' is an option of TransformerWrapper, not of Decoder",
    ),
    (f"{W}Decoder(dim='8', depth=2))", "column 74: dim is '8', which must be a whole number"),
    (f"{W}Decoder(dim=8, depth=2, macaron='yes'))", "macaron is 'yes', which must be True or False"),
    (f"{W}Decoder(dim=8, depth=2, attn_dropout='a lot'))", "attn_dropout is 'a lot', which must be a number"),
    (f"{W}Decoder(dim=8, depth=0))", "depth is 0, which must be from 1 to 10000"),
    (f"{W}Decoder(dim={10**20}, depth=2))", "dim has the number 100000000000000000000, which is too large; lower it"),
    (f"{W}Decoder(dim=8, depth=2, ff_mult=1e999))", "ff_mult has the number inf, which is too large; lower it"),
    (
        f"{W}Decoder(dim=8, custom_layers=('a', 'x')))",
        "custom_layers is 'ax', which must be a tuple of 'a' (attention)",
    ),
    (f"{W}Decoder(dim=8, custom_layers=('a', 'c')))", "'c' needs cross_attend=True"),
    (f"{W}Decoder(dim=8, depth=2, par_ratio=9))", "par_ratio is 9, which must be from 2 to 4, the number of sublayers"),
    (
        f"{W}Decoder(dim=8, depth=2, par_ratio=2, cross_attend=True))",
        "which leaves no room for a feedforward; raise it",
    ),
    (f"{W}Decoder(dim=8, depth=2, sandwich_coef=3))", "sandwich_coef is 3, which must be from 1 to the depth (2)"),
    (
        f"{W}Decoder(dim=8, depth=2, layers_execute_order=('a',)))",
        "layers_execute_order must be a tuple of the numbers",
    ),
    (f"{W}Decoder(dim=8, depth=2, attn_kv_heads=3))", "the model is refused here: "),
    (
        f"{W}Decoder(dim=1000000, depth=1, attn_value_dim_head=2147483647, heads=100000))",
        "the model is refused here: ",
    ),
    (
        f"{W}Decoder(dim=8, depth=2), embed_num_tokens={{'a': 'b'}})",
        "embed_num_tokens has a 'b', which must be a whole number",
    ),
    (
        f"{W}Decoder(dim=8, depth=2, alibi_pos_bias=True, rel_pos_kwargs=dict(slopes=1)))",
        "rel_pos_kwargs has slopes 1, which must be a tuple",
    ),
    *(
        (
            f"{W}Decoder(dim=8, depth=2, heads=4, alibi_pos_bias=True, attn_kv_heads={groups}, {options}))",
            f"from-xt: {part}",
        )
        for groups in (2, 4)
        for options, part in SLOPES
    ),
    *(
        (
            f"{W}Decoder(dim=8, depth=2, rotary_pos_emb=True, rotary_base_rescale_factor={factor}))",
            f"rotary_base_rescale_factor is {factor}, which must be above 0 and at most 1000000",
        )
        for factor in ("-2.0", "0", "10000000.0")
    ),
    (f"{W}Decoder(dim=8, custom_layers=({{}}, 'f')))", "custom_layers is '{}f', which must be a tuple of 'a' (att"),
    (
        f"{W}Decoder(dim=8, depth=2, shift_tokens=(0, 'x', 0, 0)))",
        "shift_tokens is (0, 'x', 0, 0), which must be a whole number",
    ),
    (
        "TransformerWrapper(num_tokens=11, max_seq_len=-1, attn_layers=Decoder(dim=8, depth=1))",
        "max_seq_len is -1, which must be at least 0",
    ),
    ("(" * 5000 + ")" * 5000, "from-xt: "),
    ("XTransformer" + "()" * 50, "only calls of classes by their name are read"),
    ("TransformerWrapper(num_tokens=" + "[" * 150 + "]" * 150 + ")", "from-xt: "),
    ("TransformerWrapper(num_tokens=" + "-" * 3000 + "1)", "from-xt: "),
    ("TransformerWrapper(num_tokens=" + "9" * 5000 + ")", "from-xt: line 1, column "),
    ("x." * 50 + "TransformerWrapper()", "TransformerWrapper has no attn_layers"),
    ("x." * 3000 + "TransformerWrapper()", "from-xt: "),
    ("(" + "x" * 200_000 + ")", "the text has 200002 characters, and at most 100000 are read"),
    ("TransformerWrapper(num_tokens='\0')", "from-xt: "),
    (
        "TransformerWrapper(num_tokens='\x1b[2J', attn_layers=Decoder())",
        "num_tokens is '\\x1b[2J', which must be a whole number",
    ),
]


@pytest.mark.parametrize(("text", "part"), BAD)
def test_unreadable_texts_end_in_a_sentence(text, part, capsys):
    code, out, err = run(text, capsys)
    assert code == 2 and out == ""
    assert err.startswith("lightning-xt: error: from-xt: ") and err.count("\n") == 1 and len(err) < 2000
    assert part in err


def test_a_file_that_is_not_text_is_refused(capsys, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\xff\xfe(")
    code, _, err = run(str(tmp_path / "model.bin"), capsys)
    assert code == 2 and "is not text in UTF-8" in err


def run(text, capsys):
    code = main(["from-xt", text])
    said = capsys.readouterr()
    return code, said.out, said.err
