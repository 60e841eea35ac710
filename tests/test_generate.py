"""generate from the command line: sources of prompts, output, and messages for mistakes."""

import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.commands.generation.generate_options import parse
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.models.loading import load
from lightning_xt.core.cache import Cache
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int8_linear import Int8Linear
from lightning_xt.generation.models.row_linear import RowLinear
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator
from lightning_xt.models.decoder import Decoder
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel

RUN = "runs/tiny"
SHORT = ["--max_new_tokens", "6"]


def beyond(length):
    """Return the sentence about completions beyond the 8 tokens of the training windows."""
    return (
        f"completions may reach {length} tokens, but the model was trained on sequences of 8, and text beyond that "
        "gets worse; give a smaller --max_new_tokens, or --window 8\n"
    )


@pytest.fixture
def pairs(finished_pairs, tmp_path, monkeypatch):
    """Return a copy of the run of pairs, as the current folder."""
    folder = shutil.copytree(finished_pairs, tmp_path / "pairs")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def said(capsys):
    """Return a function that runs a command and returns its output; a mistake is one sentence."""

    def run(*args):
        capsys.readouterr()
        code = main(["generate", *args])
        captured = capsys.readouterr()
        if code == 2:
            assert captured.err.startswith("lightning-xt: error: ") and captured.err.count("\n") == 1
            assert captured.out == ""
            return captured.err
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def typed(monkeypatch, said):
    """Return a function that runs a command with text on standard input, and returns its output."""

    def run(text, *args):
        content = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        return said(*args)

    return run


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


class Scripted(torch.nn.Module):
    """Model that continues any text with given ids."""

    max_length = None
    vocab_size = 256
    recurrences = ()

    def __init__(self, ids):
        super().__init__()
        self.ids, self.read = list(ids), []
        self.token_embedding = torch.nn.Embedding(1, 1)
        self.drawn = 0

    def new_cache(self, batch, capacity, **options):
        return Cache(batch, capacity, calls=1)

    def forward(self, tokens, *, lengths=None, inputs=None, cache=None, last_only=False):
        self.read += tokens[0].tolist()
        token = self.ids[self.drawn % len(self.ids)]
        self.drawn += 1
        return 50.0 * torch.nn.functional.one_hot(torch.tensor([[token]]), 256).double()


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that makes the run's model answer with a text; bytes are its ids."""

    def set_up(text):
        network = Scripted(text.encode() if isinstance(text, str) else text)
        monkeypatch.setattr(
            LanguageModel,
            "text_generator",
            property(lambda self: TextCompleter(network, self.tokenizer, torch.device("cpu"), None)),
        )
        return network

    return set_up


def test_a_prompt_alone_is_as_in_a_file_among_others(trained, said):
    shown = {prompt: said(RUN, "--prompt", prompt, *SHORT) for prompt in ("fox", "the lazy", "ü")}
    for more in ([], ["--batch", "1"], ["--batch", "2"]):
        found = objects(said(RUN, "--prompts", "prompts.txt", *SHORT, *more))
        assert [each["id"] for each in found] == [0, 1, 2]
        assert {each["prompt"]: each["prompt"] + each["text"] + "\n" for each in found} == shown
    # Both with and without streaming, and several at once.
    assert said(RUN, "--prompt", "fox", "--stream", "false", *SHORT) == shown["fox"]
    together = said(RUN, "--prompt", "fox", "--prompt", "ü", *SHORT)
    assert together == shown["fox"] + shown["ü"]
    assert said(RUN, "--prompt", "fox", "--prompt", "ü", "--stream", *SHORT) == together


def test_prompts_of_every_kind_of_file(trained, typed, said):
    expected = said(RUN, "--prompts", "prompts.txt", *SHORT)
    lines = ["fox", "the lazy", "ü"]
    Path("prompts.txt.gz").write_bytes(gzip.compress(Path("prompts.txt").read_bytes()))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    Path("prompts.jsonl.gz").write_bytes(gzip.compress(Path("prompts.jsonl").read_bytes()))
    Path("windows.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    for name in ("prompts.txt.gz", "prompts.jsonl", "prompts.jsonl.gz", "windows.txt"):
        assert said(RUN, "--prompts", name, *SHORT) == expected
    assert typed("fox\nthe lazy\nü\n", RUN, "--prompts", "-", *SHORT) == expected
    Path("gaps.jsonl").write_text('{"prompt": "fox"}\n\n{"prompt": "ü"}\n')
    assert [each["id"] for each in objects(said(RUN, "--prompts", "gaps.jsonl", *SHORT))] == [0, 2]


def test_results_hold_their_settings(trained, said):
    options = ["--filters+=RepetitionPenalty", "--filters.factor", "1.2", "--top_k", "9", "--stop", "[a", "--stop", "é"]
    (found,) = objects(said(RUN, "--prompt", "fox", "--jsonl", "--temperature", "0.5", *options, *SHORT))
    assert found["settings"] == {
        "max_new_tokens": 6,
        "temperature": 0.5,
        "filters": ["RepetitionPenalty(factor=1.2)"],
        "top_k": 9,
        "top_p": None,
        "min_p": None,
        "method": "Sample()",
        "stop": ["[a", "é"],
        "num_return_sequences": 1,
        "window": None,
        "seed": 0,
    }
    (found,) = objects(said(RUN, "--prompt", "fox", "--jsonl", "--method", "BeamSearch", "--method.beams", "3", *SHORT))
    assert found["settings"]["method"] == "BeamSearch(beams=3, length_penalty=1.0, n_best=1, patience=1.0)"


def test_a_config_holds_options_too(trained, said):
    Path("choices.yaml").write_text(
        "max_new_tokens: 6\nstop: [x]\nfilters: [{class_path: RepetitionPenalty, init_args: {factor: 1.2}}]\n"
        "method: {class_path: BeamSearch, init_args: {beams: 2}}\n"
    )
    (found,) = objects(said(RUN, "-c", "choices.yaml", "--stop", "y", "--prompt", "fox", "--jsonl"))
    assert found["settings"]["stop"] == ["x", "y"]
    assert found["settings"]["filters"] == ["RepetitionPenalty(factor=1.2)"]
    assert found["settings"]["method"].startswith("BeamSearch(beams=2,")
    assert found["settings"]["max_new_tokens"] == 6


def test_cases_n12_several_sequences_are_those_of_the_next_seeds(trained, said):
    (found,) = objects(said(RUN, "--prompt", "fox", "--jsonl", "--num_return_sequences", "3", "--seed", "5", *SHORT))
    assert found["text"] == found["sequences"][0]["text"]
    alone = [said(RUN, "--prompt", "fox", "--seed", str(seed), *SHORT) for seed in (5, 6, 7)]
    assert ["fox" + each["text"] + "\n" for each in found["sequences"]] == alone
    assert len(set(alone)) == 3
    # A completion may have line breaks.
    marked = [f"=== sequence {number} of 3 ===\n{text}" for number, text in enumerate(alone, 1)]
    assert said(RUN, "--prompt", "fox", "--num_return_sequences", "3", "--seed", "5", *SHORT) == "".join(marked)


def test_a_window_counts_where_the_text_is_longer(trained, said):
    def scores(*options):
        (found,) = objects(said(RUN, "--prompt", "the quick brown", "--log_probs", *options, *SHORT))
        return found["log_probs"]

    assert scores("--window", "40") == pytest.approx(scores(), abs=2e-4)
    assert scores("--window", "2") != pytest.approx(scores(), abs=2e-4)


def test_log_probabilities_are_the_models(trained, said):
    for options in (["--log_probs"], ["--jsonl", "--show_probabilities"]):
        (found,) = objects(said(RUN, "--prompt", "fox", "--temperature", "0.7", *options, *SHORT))
        decoder = load(RUN).decoder
        ids = [*b"fox", *found["tokens"]]
        with torch.no_grad():
            chances = decoder(torch.tensor([ids]))[0].log_softmax(-1)
        expected = [chances[2 + n, token].item() for n, token in enumerate(found["tokens"])]
        assert found["log_probs"] == pytest.approx(expected, abs=2e-4)
        assert found["score"] == pytest.approx(sum(expected), abs=1e-3)
        assert bytes(found["tokens"]).decode("utf-8", "replace") == found["text"]


def test_characters_that_span_tokens_are_shown_whole(trained, said, scripted, monkeypatch):
    pieces = []
    monkeypatch.setattr("lightning_xt.commands.generation.completions.show", pieces.append)
    scripted("aé€😀")
    said(RUN, "--prompt", "x", "--max_new_tokens", "10", "--temperature", "0")
    assert pieces == ["x", "a", "é", "€", "😀", "\n"]


def test_a_stop_string_is_found_across_tokens(trained, said, scripted):
    scripted("ab€END cd")
    assert said(RUN, "--prompt", "x", "--stop", "€E", "--stop", "ND c") == "xab\n"
    network = scripted("abEN-END cd")
    (found,) = objects(said(RUN, "--prompt", "x", "--stop", "END", "--log_probs"))
    assert found["text"] == "abEN-"
    assert bytes(found["tokens"]) == b"abEN-END"
    # Nothing is drawn that was not requested.
    assert bytes(network.read) == b"xabEN-EN"


def test_cases_d11_beams_end_at_a_stop_string(trained, said):
    beams = [
        "--prompt",
        "fox",
        "--log_probs",
        "--method",
        "BeamSearch",
        "--method.n_best",
        "4",
        "--max_new_tokens",
        "9",
    ]
    (whole,) = objects(said(RUN, *beams))
    stop = whole["text"][2:4]
    (cut,) = objects(said(RUN, *beams, "--stop", stop))
    texts = [each["text"] for each in cut["sequences"]]
    assert len(set(texts)) == len(texts) and not any(stop in text for text in texts)
    ends = [bytes(each["tokens"]).decode().removeprefix(each["text"]) for each in cut["sequences"]]
    assert stop in ends and set(ends) <= {"", stop}


def test_probable_text_is_green_and_improbable_red(trained, said, scripted):
    network = scripted("ab")
    colored = ["--show_probabilities", "--color", "always"]
    green = "\x1b[38;5;40m{}\x1b[0m"
    said_so = said(RUN, "--prompt", "x", "--max_new_tokens", "2", "--temperature", "0", *colored)
    assert said_so == "x" + green.format("a") + green.format("b") + "\n"
    assert network.read == [*b"xa"]
    # Standard output is not a terminal here.
    for color in ("auto", "never"):
        assert "\x1b" not in said(
            RUN, "--prompt", "x", "--max_new_tokens", "2", "--show_probabilities", "--color", color
        )


def test_colors_leave_the_text_as_it_is(trained, said):
    plain = said(RUN, "--prompt", "fox", "--max_new_tokens", "12")
    for more in ([], ["--stream", "false"]):
        colored = said(
            RUN, "--prompt", "fox", "--max_new_tokens", "12", "--show_probabilities", "--color", "always", *more
        )
        assert re.sub("\x1b\\[[0-9;]*m", "", colored) == plain
        assert colored.count("\x1b[0m") >= 6 and "\x1b[38;5;196m" in colored


def test_an_output_file_is_there_whole_or_as_it_was(trained, said, monkeypatch):
    expected = said(RUN, "--prompts", "prompts.txt", *SHORT)
    assert said(RUN, "--prompts", "prompts.txt", "--output", "out.jsonl", *SHORT) == ""
    assert Path("out.jsonl").read_text(encoding="utf-8") == expected
    said(RUN, "--prompt", "fox", "--output", "out.txt", *SHORT)
    assert Path("out.txt").read_text(encoding="utf-8") == said(RUN, "--prompt", "fox", *SHORT)
    step = Decoder.forward

    def interrupt(self, tokens, **options):
        if tokens.shape[1] == 1:
            raise KeyboardInterrupt
        return step(self, tokens, **options)

    monkeypatch.setattr(Decoder, "forward", interrupt)
    assert main(["generate", RUN, "--prompts", "prompts.txt", "--output", "out.txt"]) == 130
    assert Path("out.txt").read_text(encoding="utf-8").startswith("fox")
    assert not list(Path().glob(".out*"))


def test_an_interrupt_leaves_what_was_produced(trained, capsys, monkeypatch):
    capsys.readouterr()
    assert main(["generate", RUN, "--prompt", "fox", "--max_new_tokens", "20"]) == 0
    whole = capsys.readouterr().out
    forward = Decoder.forward

    def interrupt(self, tokens, *, cache=None, **options):
        if cache is not None and cache.bound > 9:
            raise KeyboardInterrupt
        return forward(self, tokens, cache=cache, **options)

    monkeypatch.setattr(Decoder, "forward", interrupt)
    assert main(["generate", RUN, "--prompt", "fox", "--max_new_tokens", "20"]) == 130
    shown, end = capsys.readouterr().out[:-1], whole.removesuffix("\n")
    assert whole.startswith(shown) and 3 < len(shown) < len(end)


def test_a_real_process_reads_a_pipe(trained, said):
    command = [sys.executable, "-m", "lightning_xt", "generate", RUN, "--prompts", "-", *SHORT]
    content = Path("prompts.txt").read_bytes()
    done = subprocess.run(command, input=content, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode() == beyond(14)
    assert done.stdout.decode() == said(RUN, "--prompts", "prompts.txt", *SHORT)


def test_translations_of_a_file_in_order(pairs, said):
    Path("new.en").write_text("a red dog\n\nman sits\nold é\n", encoding="utf-8")
    alone = said("runs/pairs", "--prompt", "man sits")
    found = objects(said("runs/pairs", "--prompts", "new.en"))
    assert [each["id"] for each in found] == [0, 1, 2, 3]
    assert [each["source"] for each in found] == ["a red dog", "", "man sits", "old é"]
    assert found[2]["text"] + "\n" == alone
    assert found[1] == {"id": 1, "source": "", "text": "", "score": 0.0, "problem": None}
    plain = said("runs/pairs", "--prompts", "new.en", "--jsonl", "false")
    assert plain.split("\n")[0] == found[0]["text"]


def test_predict_takes_the_same_choices(trained, said):
    options = {
        "max_new_tokens": "6",
        "method": "BeamSearch",
        "method.beams": "3",
        "method.n_best": "2",
        "log_probs": "true",
    }
    alike = [part for name, value in options.items() for part in (f"--{name}", value)]
    expected = objects(said(RUN, "--prompts", "prompts.txt", *alike, "--filters+=NoRepeatNgram", "--filters.n=2"))
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--data.predict_prompts"]
    chosen = [f"--sampling.{name}={value}" for name, value in options.items()]
    chosen += ["--sampling.filters+=NoRepeatNgram", "--sampling.filters.n=2"]
    assert main([*predict, "prompts.txt", *chosen, "--output", "out.jsonl"]) == 0
    assert objects(Path("out.jsonl").read_text(encoding="utf-8")) == expected
    assert len(expected[0]["sequences"]) == 2


def test_predict_takes_helpers_and_reports_costs(trained, said, capsys):
    expected = objects(said(RUN, "--prompts", "prompts.txt", "--weights", "bfloat16", *SHORT))
    assert expected[0]["settings"]["weights"] == "bfloat16"
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--data.predict_prompts"]
    weights = ["--inference.weights", "bfloat16", "--sampling.max_new_tokens", "6", "--trainer.accelerator", "cpu"]
    assert main([*predict, "prompts.txt", *weights, "--output", "out.jsonl"]) == 0
    assert objects(Path("out.jsonl").read_text(encoding="utf-8")) == expected
    assert "weights bfloat16: loss " in capsys.readouterr().err
    assert main([*predict, "prompts.txt", "--inference.guidance", "2", "--output", "guided.jsonl"]) == 2
    assert "--guidance 2.0 weighs what a source adds" in capsys.readouterr().err
    assert "guided.jsonl" not in {path.name for path in Path().iterdir()}


def test_samples_take_the_same_choices(fresh):
    choices = [
        "--sample_text.generation.method",
        "BeamSearch",
        "--sample_text.generation.method.beams",
        "2",
        "--sample_text.generation.stop=[zz]",
    ]
    assert main(["fit", "-c", "tiny.yaml", *choices, "--trainer.max_steps", "3"]) == 0
    samples = Path("runs/tiny/0/samples.txt").read_text(encoding="utf-8")
    step, text = samples.removesuffix("\n\n").split("\n", 1)
    assert step == "=== step 3 ==="
    beams = [
        "--method",
        "BeamSearch",
        "--method.beams",
        "2",
        "--max_new_tokens",
        "4",
        "--temperature",
        "0.8",
        "--stop",
        "zz",
    ]
    command = ["generate", "runs/tiny/0/checkpoints/last.ckpt", "--prompt", "a", *beams, "--output", "out.txt"]
    assert main(command) == 0
    assert Path("out.txt").read_text(encoding="utf-8") == text + "\n"


@pytest.mark.slow
def test_compiled_steps_draw_the_same(trained, said):
    # In a separate process: the shape checks of this one do not compile.
    options = [RUN, "--prompt", "fox", "--top_k", "9", *SHORT]
    command = [sys.executable, "-m", "lightning_xt", "generate", *options, "--compile"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == said(*options)


MISTAKES = [
    (
        "--prompt x --method BemSearch",
        "--method: unknown Method class 'BemSearch'; did you mean BeamSearch or StochasticBeamSearch?",
    ),
    ("--prompt x --filters+=RepetitionPenalti", "unknown Filter class 'RepetitionPenalti'; did you mean Repetition"),
    ("--prompt x --filters TopA", "--filters is a list; add to it with --filters+=TopA"),
    ("--prompt x --method BeamSearch --method.beam 3", "unknown option of BeamSearch 'beam'; did you mean beams?"),
    ("--prompt x --method BeamSearch --method.beams 0", "method: BeamSearch has beams 0"),
    ("--prompt x --method BeamSearch --num_return_sequences 2", "ranks sequences itself and returns its n_best"),
    ("--prompt x --num_return_sequences 2 --temperature 0", "at temperature 0 all would be the same"),
    ("--prompt x --num_return_sequences 0", "sampling has num_return_sequences 0, which must be at least 1"),
    ("--prompt x --top_p 1.5", "filters: TopP (top_p) has p 1.5, which must be above 0 and at most 1"),
    ("--prompt x --top_p 0", "filters: TopP (top_p) has p 0.0, which must be above 0 and at most 1"),
    ("--prompt x --max_new_tokens -3", "sampling has max_new_tokens -3, which must be at least 1"),
    ("--prompt x --window 0", "sampling has window 0, which must be at least 1"),
    ("--prompt x --batch 0", "sampling has batch 0, which must be at least 1"),
    ("--prompt x --temperature hot", "--temperature: expected float, not 'hot'"),
    ("--prompt x --jsonl maybe", "--jsonl is true, false or null, not 'maybe'"),
    ("--prompt x --weights int3", "expected one of 'float32', 'bfloat16', 'int8', 'int4', not 'int3'"),
    ("--prompt x --weights int4 --group_size 0", "group_size is 0; it must be at least 1 number of a row, or row"),
    ("--prompt x --group_size 64", "group_size is 64, but weights is not given, which has no groups; omit it, or set"),
    ("--prompt x --color red", "expected one of 'auto', 'always', 'never', not 'red'"),
    ("--prompt x --stop=", "stop has an empty string"),
    ("--prompt x --stop", "generate: --stop needs a value; one that begins with - is written as --stop=VALUE"),
    ("--prompt x stray", "'stray' stands where an option was expected"),
    ("--prompt=", "generate needs a prompt of at least one character"),
    ("--prompt x --prompts prompts.txt", "--prompt and --prompts prompts.txt both give prompts"),
    ("--prompts nope.txt", "--prompts nope.txt: no such file"),
    ("--prompts empty.txt", "--prompts empty.txt: the file is empty; write one prompt per line"),
    ("--prompts bad.txt", "--prompts bad.txt: line 2: byte 1 of the line is not UTF-8"),
    ("--prompts gap.txt", "prompt 2 is empty, and the model has no start token"),
    ("--prompts bad.jsonl", "--prompts bad.jsonl: line 1 has no field 'prompt' but 'text'"),
    ("--prompts cut.gz", "cut.gz ends too early: the download or copy was cut off"),
    (
        "--prompts prompts.txt --stream",
        "--stream prints text as it is generated, and JSON lines hold whole completions",
    ),
    (
        "--prompt x --stream --num_return_sequences 2",
        "--stream prints one completion as it is generated, but 2",
    ),
    ("--prompt x --output no/such/out.txt", "--output no/such/out.txt: there is no such folder; create it first"),
    ("--prompt x --output .", "--output . cannot be written (Is a directory); name another file"),
    (
        "--prompts prompts.txt --output ./prompts.txt",
        "--output ./prompts.txt is the file of --prompts, which it would replace; name another",
    ),
    (
        "--interactive --prompts prompts.txt",
        "--interactive reads what you type and prints what follows; omit --prompts",
    ),
    ("--interactive --log_probs", "--interactive reads what you type and prints what follows; omit --log_probs"),
    ("--interactive --num_return_sequences 2", "--interactive continues one completion, but 2 are requested"),
    ("--prompt x --guidance 2", "--guidance 2.0 weighs what a source adds, but a LanguageModel has none"),
    ("--prompt x --draft nope", "nope is not a run: there is no such folder or file"),
    ("--prompt x --draft runs/tiny --method PromptLookup", "a draft and method PromptLookup("),
    (
        "--prompt x --num_return_sequences 3 --method ContrastiveSearch",
        "ContrastiveSearch(k=4, alpha=0.6), samples nothing, so all would be the same",
    ),
    ("--prompt x -c nope.yaml", "nope.yaml; check the path given to -c"),
]


@pytest.mark.parametrize(("command", "part"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_gives_one_sentence(command, part, trained, said):
    Path("empty.txt").touch()
    Path("bad.txt").write_bytes(b"fox\na\xff\n")
    Path("gap.txt").write_bytes(b"fox\n\nthe\n")
    Path("bad.jsonl").write_text('{"text": "fox"}\n')
    Path("cut.gz").write_bytes(b"\x1f\x8bno")
    before = sorted(trained.rglob("*"))
    assert part in said(RUN, *command.split())
    assert sorted(trained.rglob("*")) == before


def test_a_run_is_needed(said):
    assert "generate: RUN is required" in said("--prompt", "x")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (
            "--sampling.method BemSearch",
            "--sampling.method: unknown Method class 'BemSearch'; did you mean BeamSearch or StochasticBeamSearch?",
        ),
        (
            "--sample_text.generation.filters+=Bannd",
            "--sample_text.generation.filters: unknown Filter class 'Bannd'; did you mean Banned?",
        ),
        ("--sampling.filters+=NoRepeatNgram", "--sampling.filters.n is required"),
        ("--sampling.stop=['']", "stop has an empty string"),
        (
            "--sample_text.generation.num_return_sequences 0",
            "sampling has num_return_sequences 0, which must be at least 1",
        ),
        ("--inference.weights int3", "'float32', 'bfloat16', 'int8', 'int4'"),
    ],
)
def test_the_other_commands_report_mistakes_of_the_same_choices(options, part, fresh, capsys):
    before = sorted(fresh.rglob("*"))
    assert main(["fit", "-c", "tiny.yaml", *options.split()]) == 2
    told = capsys.readouterr().err
    assert part in told and told.count("\n") == 1
    assert sorted(fresh.rglob("*")) == before


def test_cases_d19_helpers_must_read_the_same_ids(pairs, finished, said):
    shutil.copytree(finished / "runs" / "tiny", "runs/tiny")
    assert "--draft is for language models, but this is a Seq2Seq" in said(
        "runs/pairs", "--prompt", "a", "--draft", RUN
    )
    assert "--draft runs/pairs is a Seq2Seq; give the run of a language model" in said(
        RUN, "--prompt", "a", "--draft", "runs/pairs"
    )
    shutil.copy(finished / "corpus.txt", ".")
    other = ["--data.documents", "separator"]
    assert main(["fit", "-c", str(finished / "tiny.yaml"), "--name", "apart", "--trainer.max_steps", "3", *other]) == 0
    for option in ("--amateur", "--draft"):
        told = said(RUN, "--prompt", "a", option, "runs/apart")
        said_so = "has another vocabulary than the model: Bytes with separator 255 instead of None; give a run that was"
        assert f"{option} runs/apart {said_so}" in told


def test_helpers_help(pairs, finished, said):
    shutil.copytree(finished / "runs" / "tiny", "runs/tiny")
    alone = said(RUN, "--prompt", "fox", *SHORT)
    # A draft changes no text; equal amateurs leave only the plausible tokens.
    assert said(RUN, "--prompt", "fox", "--draft", RUN, *SHORT) == alone
    greedy = ["--prompt", "fox", "--temperature", "0", *SHORT]
    assert said(RUN, *greedy, "--amateur", RUN, "--amateur", f"{RUN}/0") == said(RUN, *greedy)
    module = load("runs/pairs")
    plain = said("runs/pairs", "--prompt", "a red dog", "--max_new_tokens", "4")
    assert said("runs/pairs", "--prompt", "a red dog", "--max_new_tokens", "4", "--guidance", "1") == plain
    with torch.no_grad():
        sources = [[*module.source_tokenizer.encode("a red dog"), 2], [2]]
        given, free = (
            module.network(torch.tensor([each]), torch.tensor([[1]]))[0, -1].log_softmax(-1) for each in sources
        )
    strong = said("runs/pairs", "--prompt", "a red dog", "--max_new_tokens", "1", "--guidance", "9", "--log_probs")
    assert objects(strong)[0]["tokens"] == [int((free + 9 * (given - free)).argmax())]


def test_other_weights_report_their_cost(pairs, finished, capsys):
    shutil.copytree(finished / "runs" / "tiny", "runs/tiny")
    for run in (RUN, "runs/pairs"):
        for weights in ("bfloat16", "int8", "int4"):
            assert main(["generate", run, "--prompt", "a red dog", "--max_new_tokens", "4", "--weights", weights]) == 0
            told = re.fullmatch(
                rf"weights {weights}: loss (\d\.\d{{4}}) nats a token, (\d\.\d{{4}}) with float32\n",
                capsys.readouterr().err.removeprefix(beyond(13) if run == "runs/tiny" else ""),
            )
            assert float(told[1]) == pytest.approx(float(told[2]), abs=0.02)
    assert main(["generate", RUN, "--prompt", "fox", "--max_new_tokens", "4", "--weights", "float32"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_fit_into_memory(trained, said, monkeypatch, error):
    def full(self, batch, capacity, **options):
        raise error

    monkeypatch.setattr(Decoder, "new_cache", full)
    told = said(RUN, "--prompts", "prompts.txt", "--batch", "2", "--max_new_tokens", "1000")
    assert "not enough memory to decode 2 rows at once with a cache of 1008 tokens each; lower --batch" in told
    assert "or --max_new_tokens" in told


def test_other_errors_are_not_a_lack_of_memory(trained, monkeypatch):
    def broken(self, batch, capacity, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Decoder, "new_cache", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        main(["generate", RUN, "--prompt", "x"])


@pytest.mark.parametrize("option", ["--compile", "--amateur runs/none", "--guidance 1.5"])
def test_what_takes_the_networks_place_gives_no_vectors(option, said):
    # Reported before the search for a run, which does not exist.
    told = said("runs/none", "--prompt", "x", *option.split(), "--method", "ContrastiveSearch")
    assert f"{option.split()[0]} takes the network's place, but the method, ContrastiveSearch, compares vectors" in told


def test_predict_refuses_them_too(trained, capsys):
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--data.predict_prompts"]
    options = ["--inference.compile", "true", "--sampling.method", "ContrastiveSearch"]
    assert main([*predict, "prompts.txt", *options, "--output", "out.jsonl"]) == 2
    assert "--compile takes the network's place, but the method, ContrastiveSearch" in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_guidance_leaves_the_network_as_it_was(pairs):
    module = load("runs/pairs").train()
    Inference(guidance=2.0).apply(module)
    assert all(each.training for each in module.modules())
    module.eval()
    Inference(guidance=2.0).apply(module)
    assert not any(each.training for each in module.modules())


def test_steps_are_compiled_of_the_layout_for_it(trained, monkeypatch):
    # The shape checks of this process do not compile.
    monkeypatch.setattr("lightning_xt.commands.models.inference.Compiled", lambda decoder: ("compiled", decoder))
    module = load(RUN)
    kinds = (None, RowLinear), ("float32", RowLinear), ("int8", Int8Linear), ("int4", Int4Linear)
    for weights, kind in kinds:
        inference = Inference(weights=weights, compile=True)
        inference.apply(module)
        compiled, decoder = module.decoding.model
        assert compiled == "compiled" and isinstance(decoder.head.to_logits, kind)
        # The cost is reported if it was requested.
        assert (inference.cost is None) == (weights is None)
    assert type(module.decoder.head.to_logits) is torch.nn.Linear


def test_steps_of_segments_are_not_compiled():
    network = {"dim": 12, "depth": 1, "attention": {"heads": 2}, "segments": "MemoryTokens"}
    module = LanguageModel.from_config({"decoder": network})
    with pytest.raises(
        UserError, match=r"^--compile compiles decode steps, but .* segments \(MemoryTokens\) .*; omit it$"
    ):
        Inference(compile=True).apply(module)
    Inference(weights="int8").apply(module)


def test_a_source_beyond_the_positions_is_reported(pairs, monkeypatch, capsys):
    init = Translator.__init__

    def short(self, *args):
        init(self, *args)
        self.max_source_ids = 4

    monkeypatch.setattr(Translator, "__init__", short)
    source = "a red dog in the green house"
    for text, options in (("", ["--prompt", source]), (f"{source}\n/quit\n", ["--interactive"])):
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        assert main(["generate", "runs/pairs", *options, "--max_new_tokens", "3"]) == 0
        told = capsys.readouterr().err
        assert re.fullmatch(r"it has \d+ tokens; only the first 3 are used \(max_length\)\n", told)


def test_a_flag_before_the_run_leaves_it_alone(trained, said):
    expected = said(RUN, "--prompt", "fox", *SHORT)
    assert said("--prompt", "fox", RUN, "--stream", *SHORT) == expected
    assert said("--stream=true", RUN, "--prompt", "fox", *SHORT) == expected
    assert parse(["--jsonl", "false", "x", "--prompts", "y"]).jsonl is False
    assert parse(["--prompts", "y", "--jsonl", "FALSE", "x"]).run == "x"
    with pytest.raises(UserError, match="--stream is true, false or null, not 'x'; give it without a value"):
        parse(["--stream", "x", "--prompt", "y"])
    found = parse(["x", "--log_probs", "--compile", "--stop=--stream", "--prompt", "y"])
    assert (found.run, found.inference.compile, found.output_options.stream) == ("x", True, None)
    assert found.sampling == GenerationOptions(stop=["--stream"], filters=[], log_probs=True)
    assert parse(["x", "--prompt", "y", "--jsonl"]).jsonl is True


@pytest.mark.parametrize("option", ["--stop", "--prompt", "--prompts", "--draft", "--top_k", "-c"])
def test_cases_d15_an_option_is_not_the_value_of_another(option):
    name = "--config" if option == "-c" else option
    with pytest.raises(
        UserError, match=f"^generate: {name} needs a value; one that begins with - is written as {name}="
    ):
        parse(["x", option, "--log_probs"])


@pytest.mark.parametrize("text", ["[INST]", "--log_probs", "{a: b}", "null", "1", "~", "# x", "a: b", "", " ", "- a"])
def test_cases_d15_texts_are_taken_as_they_are(text):
    assert parse(["x", f"--prompt={text}"]).prompt == [text]
    if text:
        assert parse(["x", f"--stop={text}", "--stop=b"]).sampling.stop == [text, "b"]
    else:
        with pytest.raises(ValueError, match="stop has an empty string, which would end every text at once; omit it"):
            parse(["x", "--stop", text])
    if not text.startswith("-"):
        assert parse(["x", "--prompt", text]).prompt == [text]


def test_flags_stand_alone_or_with_a_value():
    assert parse(["x", "--jsonl"]).jsonl is True
    assert parse(["x", "--prompts", "y", "--jsonl", "false"]).jsonl is False
    assert parse(["x", "--prompts", "y"]).jsonl is True
    assert parse(["x", "--log_probs", "--prompt", "y"]).jsonl is True
    assert parse(["x", "--prompt", "y"]).streamed is True
    assert parse(["x", "--prompt", "y", "--prompt", "z"]).streamed is False
    assert parse(["x", "--prompt", "y", "--method", "BeamSearch", "--method.n_best", "2"]).streamed is False
    assert parse(["x", "--stop", "a", "--stop=b"]).sampling == GenerationOptions(stop=["a", "b"], filters=[])
    assert parse(["x", "--prompt", "[1, 2]", "--prompt", "null"]).prompt == ["[1, 2]", "null"]


# Scores that are not finite -------------------------------------------------------------------------------------------


@pytest.fixture
def broken(trained):
    """Return the run with a NaN among its weights, as the current folder."""
    file = Path(RUN, "0/checkpoints/best.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    list(checkpoint["state_dict"].values())[-1].view(-1)[0] = float("nan")
    torch.save(checkpoint, file)
    return trained


@pytest.mark.parametrize("method", ["Sample", "BeamSearch", "StochasticBeamSearch", "ContrastiveSearch"])
def test_cases_d9_weights_that_are_not_finite_end_in_a_sentence(broken, said, method):
    found = said(RUN, "--prompt", "the", "--prompt", "a", "--method", method, *SHORT)
    assert "the model's scores of the next token are not finite" in found


def test_cases_d9_an_evaluation_that_is_not_finite_ends_in_a_sentence(broken, capsys):
    for command, split in (("validate", "val"), ("test", "test")):
        capsys.readouterr()
        assert main([command, "-c", f"{RUN}/0/config.yaml", "--ckpt_path", "best"]) == 2
        captured = capsys.readouterr()
        assert f"{split}/loss is nan: the model's scores are not finite" in captured.err
        assert f"{split}/loss=" not in captured.out


def test_cases_d4_a_language_model_is_measured_without_decoding(trained, capsys):
    best = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    for command in ("validate", "test"):
        for option in ("--sampling.top_k=5", "--sampling.filters+=NoRepeatNgram", "--inference.compile=true"):
            more = ["--sampling.filters.n=2"] if "filters" in option else []
            assert main([command, *best, option, *more]) == 2
            assert capsys.readouterr().err.splitlines()[-1] == (
                f"lightning-xt: error: {command} does not use {option.partition('=')[0]}: a LanguageModel is measured "
                "without decoding; omit it, or give it to predict"
            )
    # A value of another option.
    Path("sampling.txt").write_bytes(Path("corpus.txt").read_bytes())
    assert main(["validate", *best, "--data.path", "sampling.txt"]) == 0


def test_cases_d18_log_probabilities_need_json(trained, said):
    message = "--log_probs are written as JSON lines, which --jsonl=false switches off; omit one"
    assert message in said(RUN, "--prompt", "fox", "--log_probs", "--jsonl=false")


def test_cases_d20_completions_beyond_the_trained_length_are_reported(trained, capsys, caplog):
    best = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    assert main(["generate", RUN, "--prompt", "fox", "--max_new_tokens", "30"]) == 0
    assert capsys.readouterr().err == beyond(33)
    for quiet in (["--max_new_tokens", "5"], ["--max_new_tokens", "30", "--window", "8"]):
        assert main(["generate", RUN, "--prompt", "fox", *quiet]) == 0
        assert capsys.readouterr().err == ""
    predict = ["predict", *best, "--data.predict_prompts", "prompts.txt", "--output", "out.jsonl"]
    with caplog.at_level("INFO"):
        assert main([*predict, "--sampling.max_new_tokens", "30"]) == 0
    assert caplog.messages.count(beyond(38).rstrip("\n")) == 1
    # Without the data the checkpoint says so.
    assert torch.load("runs/tiny/0/checkpoints/best.ckpt", weights_only=True)["lightning_xt"]["trained_length"] == 8


def test_a_recurrence_refuses_windows_and_drafts_before_any_text(fresh, said, capsys):
    """One sentence before anything is read, typed or trained."""
    fit = ["fit", "-c", "tiny.yaml", "--model.decoder.attention=DeltaNet", "--model.decoder.attention.heads=2"]
    fit += ["--trainer.max_steps=3", "--sample_text.prompts=[]"]
    assert main([*fit, "--name=window", "--sample_text.prompts=[a]", "--sample_text.generation.window=4"]) == 2
    assert "window is 4, but DeltaNet is a recurrence" in capsys.readouterr().err
    assert main([*fit, "--name=tiny"]) == 0
    for given in (["--prompt", "fox"], ["--interactive"], ["--prompts", "prompts.txt"]):
        window = said(RUN, *given, "--window", "4")
        assert "window is 4, but DeltaNet is a recurrence, whose state remembers tokens of any distance" in window
        draft = said(RUN, *given, "--method", "PromptLookup")
        assert "method PromptLookup removes rejected drafts from a cache, but DeltaNet is a running state" in draft
    assert "method Draft removes rejected drafts" in said(RUN, "--prompt", "fox", "--draft", RUN)
    assert said(RUN, "--prompt", "fox", "--method", "BeamSearch")
