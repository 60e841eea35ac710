"""variants: the list of all families, the description of one variant, and the combinations that a model refuses."""

import json
import subprocess
import sys

import pytest
from catalogue import FAMILIES, list_variants

from lightning_xt.cli import main
from lightning_xt.commands.catalogue import combinations, variant_list
from lightning_xt.commands.catalogue.families import find_overlays
from lightning_xt.commands.catalogue.merging import merge
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.data.denoisers.base import Denoiser
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.methods.base import Method
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.adapters.base import Adapter
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.base import Objective
from lightning_xt.system.docstrings import find_counterparts

OTHERS = {
    "adapter": Adapter,
    "objective": Objective,
    "auxiliaries": Auxiliary,
    "denoiser": Denoiser,
    "filter": Filter,
    "method": Method,
}


def show(capsys, *options):
    capsys.readouterr()
    assert main(["variants", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_json_lists_every_variant_of_every_family(capsys):
    found = json.loads(show(capsys, "--json"))
    assert all(list(each) == ["family", "name", "summary", "source", "x_transformers"] for each in found)
    # A norm of queries and keys is a norm.
    families = {slot: base for slot, (base, _) in FAMILIES.items() if slot != "qk_norm"} | OTHERS
    expected = {(slot, kind.__name__) for slot, base in families.items() for kind in list_variants(base)}
    assert {(each["family"], each["name"]) for each in found} <= expected
    assert sorted(each["name"] for each in found) == sorted({name for _, name in expected})
    alibi = next(each for each in found if each["name"] == "ALiBi")
    assert alibi["source"] == "https://arxiv.org/abs/2108.12409"
    assert alibi["x_transformers"].startswith("alibi_pos_bias, alibi_num_heads")
    assert next(each for each in found if each["name"] == "Banned")["source"] is None


def test_every_variant_has_a_summary_of_one_sentence(capsys):
    for each in json.loads(show(capsys, "--json")):
        assert each["summary"].endswith("."), each
        assert len(each["summary"].split()) > 2, each


def test_the_list_names_slots_and_counts(capsys):
    out = show(capsys)
    assert "\nposition  (--model.decoder.attention.position)\n  ALiBi   " in out
    assert "\nmethod\n  BeamSearch   " in out
    *_, variants, parts = out.splitlines()
    listed = variant_list.list_variants()
    assert variants == f"variants={len(listed)}"
    assert parts == f"parts_of_a_network={sum(kind.__module__.startswith('lightning_xt.nn.') for _, kind in listed)}"


def test_a_family_is_listed_alone(capsys):
    found = json.loads(show(capsys, "position", "--json"))
    assert [each["name"] for each in found] == [kind.__name__ for kind in list_variants(FAMILIES["position"][0])]
    assert show(capsys, "position").splitlines()[0] == "position  (--model.decoder.attention.position)"


def test_one_variant_is_described_with_its_overlay_and_options(capsys):
    found = json.loads(show(capsys, "ALiBi", "--json"))
    assert found["slot"] == "model.decoder.attention.position"
    option = found["options"][0]
    assert (option["name"], option["required"], option["default"]) == ("biased_heads", False, None)
    assert option["meaning"].startswith("number of heads with a bias")
    assert found["overlays"][0]["name"] == "variants/alibi.yaml"
    assert found["overlays"][0]["text"] == find_overlays(ALiBi)["variants/alibi.yaml"]
    assert found["refused_by"] == {}
    out = show(capsys, "ALiBi")
    assert out.startswith("ALiBi (position): Lower each score")
    for text in (
        "Option: --model.decoder.attention.position\n",
        "  --biased_heads INT",
        "-c variants/alibi.yaml\n# A bias",
    ):
        assert text in out
    assert "Not in" not in out


def test_one_variant_is_described_with_what_refuses_it(capsys):
    found = json.loads(show(capsys, "Contextual", "--json"))
    assert found["refused_by"] == {
        "encoder": "position: Contextual counts back from each query, so it serves causal self-attention only; choose "
        "another"
    }
    latent = next(each for each in found["conflicts"] if each["name"] == "Latent")
    assert latent["family"] == "projection"
    assert latent["reason"].endswith("so it cannot be combined with position Contextual; omit one of them")
    out = " ".join(show(capsys, "Contextual").split())
    assert "Not in an encoder: position: Contextual counts back" in out
    assert "Cannot stand next to:" in out
    assert "projection Latent attention: projection Latent has no keys and values per head" in out


@pytest.mark.parametrize("name", ["TopK", "NextToken", "BeamSearch"])
def test_what_is_not_part_of_a_network_conflicts_with_nothing(name, capsys):
    found = json.loads(show(capsys, name, "--json"))
    assert (found["slot"], found["refused_by"], found["conflicts"]) == (None, {}, [])
    assert show(capsys, name).startswith(f"{name} (")


def test_a_variant_without_options_says_so(capsys):
    assert "\nNo options.\n" in show(capsys, "Sample")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ALiBy", "variants: unknown variant 'ALiBy'; did you mean ALiBi or "),
        ("postion", "variants: unknown variant 'postion'; did you mean position or "),
    ],
)
def test_an_unknown_name_is_refused_with_close_ones(name, message, capsys):
    assert main(["variants", name]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"lightning-xt: error: {message}")
    assert len(error.splitlines()) == 1


def test_every_part_is_built_by_a_model_at_least():
    """Also that each can be chosen without Lightning's parser."""
    slots = variant_list.list_slots()
    parts = [(kind, slot) for base, slot in slots.items() for kind in variant_list.list_members(base)]
    refused = {kind.__name__: combinations.find_refusals(kind, slot) for kind, slot in parts}
    assert {name: reasons for name, reasons in refused.items() if len(reasons) == len(combinations.MODELS)} == {}
    assert list(refused["Forgetting"]) == ["encoder"]


@pytest.mark.slow
def test_every_part_can_be_built_next_to_every_other_or_is_refused():
    slots = variant_list.list_slots()
    for base in slots:
        for kind in variant_list.list_members(base):
            assert all(each.reason for each in combinations.find_conflicts(kind, slots))


def test_a_combination_is_refused_from_both_sides():
    slots = variant_list.list_slots()
    named = {kind.__name__: kind for _, kind in variant_list.list_variants()}
    for one, other in (("Latent", "ValueResidual"), ("ValueResidual", "Latent")):
        assert other in [each.name for each in combinations.find_conflicts(named[one], slots)]


@pytest.mark.parametrize(
    ("names", "together", "sentence"),
    [
        ("ALiBi Softmax", True, "ALiBi and Softmax work together"),
        ("Mamba2 ALiBi", True, "Mamba2 and ALiBi work together"),
        ("LinearScaling RandomizedPositions", True, "LinearScaling and RandomizedPositions work together"),
        ("SoftCap TalkingHeads", True, "SoftCap and TalkingHeads work together"),
        ("Inverted ALiBi", True, "Inverted and ALiBi work together in an encoder"),
        (
            "Forgetting MeanVarianceSplit",
            True,
            "Forgetting and MeanVarianceSplit work together in an encoder-decoder, MeanVarianceSplit in the encoder "
            "and Forgetting in the decoder",
        ),
        (
            "Laser Latent",
            False,
            "attention: projection Latent has no keys and values per head, so it cannot be combined with value_mods "
            "Laser; omit one of them",
        ),
        (
            "ALiBi Rotary",
            False,
            "ALiBi and Rotary are both chosen in position, which takes one; Combined holds several",
        ),
        ("RMSNorm LayerNorm", False, "RMSNorm and LayerNorm are both chosen in norm, which takes one"),
        ("ALiBi TopK", False, "ALiBi and TopK do not meet in a network: TopK belongs to filter"),
        ("SwiGLU ReLU", True, "SwiGLU and ReLU work together"),
        (
            "GivenContext MeanVarianceSplit",
            False,
            "GivenContext and MeanVarianceSplit leave no room for each other: GivenContext is chosen in "
            "--model.decoder.context, MeanVarianceSplit is chosen in --model.decoder.residual",
        ),
    ],
)
def test_two_variants_work_together_or_a_sentence_says_why_not(names, together, sentence, capsys):
    assert show(capsys, *names.split()) == f"{sentence}\n"
    first, second = names.split()
    found = json.loads(show(capsys, first, second, "--json"))
    assert found == {"first": first, "second": second, "together": together, "sentence": sentence}


@pytest.mark.parametrize("names", [("ALiBi", "Rotery"), ("Rotery", "ALiBi"), ("Rotery", "Rotery")])
def test_an_unknown_one_of_two_is_refused_with_close_names(names, capsys):
    assert main(["variants", *names]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("lightning-xt: error: variants: unknown variant 'Rotery'; did you mean Rotary")
    assert len(error.splitlines()) == 1


def test_one_variant_named_twice_is_refused(capsys):
    assert main(["variants", "ALiBi", "ALiBi"]) == 2
    assert capsys.readouterr() == ("", "lightning-xt: error: variants: ALiBi is named twice; name two variants\n")


def test_help_and_the_list_of_commands_import_no_torch():
    code = "import sys; from lightning_xt.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for options in (["variants", "--help"], ["--help"]):
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "variants" in done.stdout


def test_the_list_imports_no_lightning():
    code = "import sys; from lightning_xt.cli import main; main(['variants']); assert 'lightning' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": ["Laser"]}, {"a": ["ValueNorm", "Laser"]}, {"a": ["Laser", "ValueNorm"]}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        (
            {"a": "Rotary"},
            {"a": {"class_path": "ALiBi"}},
            {
                "a": {
                    "class_path": "Combined",
                    "init_args": {"positions": [{"class_path": "Rotary"}, {"class_path": "ALiBi"}]},
                }
            },
        ),
        (
            {"a": {"class_path": "Attention", "init_args": {"position": "ALiBi"}}},
            {"a": {"class_path": "Hybrid", "init_args": {"recipes": ["Mamba2", "Attention"]}}},
            {
                "a": {
                    "class_path": "Hybrid",
                    "init_args": {
                        "recipes": ["Mamba2", {"class_path": "Attention", "init_args": {"position": "ALiBi"}}]
                    },
                }
            },
        ),
        (
            {"a": {"class_path": "MixtureOfExperts", "init_args": {"top_k": 1}}},
            {"a": "SwiGLU"},
            {"a": {"class_path": "MixtureOfExperts", "init_args": {"top_k": 1, "expert": {"class_path": "SwiGLU"}}}},
        ),
        (
            {"a": {"heads": 4}},
            {"a": {"class_path": "Attention", "init_args": {"window": 3}}},
            {"a": {"class_path": "Attention", "init_args": {"heads": 4, "window": 3}}},
        ),
        (
            {"a": {"class_path": "Attention", "init_args": {"window": 3}}},
            {"a": {"heads": 4}},
            {"a": {"class_path": "Attention", "init_args": {"heads": 4, "window": 3}}},
        ),
        ({"a": {"heads": 4}}, {"a": {"class_path": "Cycle"}}, {"a": {"class_path": "Cycle"}}),
        ({"a": {"class_path": "Add"}}, {"a": {"class_path": "GRUGate"}}, {"a": {"class_path": "GRUGate"}}),
    ],
)
def test_options_are_merged(first, second, merged):
    assert merge(first, second) == merged


def test_a_recipe_resolves_names_mappings_and_nulls():
    rotary = {"class_path": "lightning_xt.Rotary", "init_args": {"rotary_dim": 4}}
    attention = {"heads": 2, "position": rotary, "qk_norm": None, "score_mods": ["SoftCap"]}
    model = make_recipe(Decoder, {"dim": 16, "depth": 1, "attention": attention})(7)
    assert {Rotary, SoftCap} <= {type(module) for module in model.modules()}


def counterparts_of(text):
    return find_counterparts(type("Part", (), {"__doc__": text}))


def test_counterparts_are_read_from_a_docstring():
    assert counterparts_of("Do.\n\nIn x-transformers: a.") == (["a"], None)
    assert counterparts_of("Do.\n\nIn x-transformers: a, b,\nc; wrong with 1.5\nheads.\n\nArgs:\n    x: y.") == (
        ["a", "b", "c"],
        "wrong with 1.5 heads",
    )
    assert counterparts_of("Do.\n\nIn x-transformers: a, b;\nc there.") == (["a", "b"], "c there")
    assert counterparts_of("Do as in x-transformers.") == ([], None)
    assert counterparts_of(None) == ([], None)
