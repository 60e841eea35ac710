"""Encoder-decoders from the command line."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest
import sacrebleu
import torch
import warm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_pairs import sentences, write_pairs
from tiny_run import list_names, read_rows

from lightning_xt.cli import main
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.training.seq2seq import Seq2Seq

RUN = "runs/pairs/0"
BEST = ["-c", f"{RUN}/config.yaml", "--ckpt_path", "best"]


@pytest.fixture
def trained(finished_pairs, tmp_path, monkeypatch):
    """Return a copy of the run of pairs, as the current folder."""
    folder = shutil.copytree(finished_pairs, tmp_path / "trained")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    write_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    return tmp_path


def forget_training():
    """Delete the files that a translation does not need."""
    for name in ("pairs.en", "pairs.de", f"{RUN}/source_tokenizer.json", f"{RUN}/target_tokenizer.json"):
        Path(name).unlink()


def process(*args, size=None):
    return warm.run(args, limits=[] if size is None else [(resource.RLIMIT_FSIZE, size)])


def in_two_processes(*args):
    cpu = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    done = process(*args, *cpu)
    assert done.returncode == 0, done.stderr
    return done


def metrics(printed):
    return [line for line in printed.splitlines() if line.startswith("val/")]


def test_a_run_reports_and_shows_what_it_translates(trained):
    found = read_rows(RUN)
    wanted = {"val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match", "val/bleu", "val/chrf"}
    assert wanted | {"train/loss", "optim/grad_norm", "speed/tokens_per_second"} <= set(found[0])
    assert [row["step"] for row in found if row["val/bleu"]] == ["4", "6"]
    samples = Path(RUN, "samples.txt").read_text().split("\n\n")
    held = sentences(60)[45:57]
    for number, sample in enumerate(samples[:8]):
        source, target = held[number % 4]
        step, first, second, third = sample.split("\n", 3)
        assert step == f"=== step {4 if number < 4 else 6} ==="
        assert (first, second) == (f"source      {source}", f"target      {target}")
        assert third.startswith("prediction  ")
    tensors = EventAccumulator(RUN).Reload().Tags()["tensors"]
    assert {f"samples/{number}/text_summary" for number in range(4)} <= set(tensors)


def test_prompts_are_translated_where_some_are_given(fresh):
    command = ["fit", "-c", "pairs.yaml", "--trainer.max_steps", "3", "--validate_every", "2"]
    assert main([*command, "--sample_text.prompts", "[a red dog]", "--sample_text.generation.max_new_tokens", "5"]) == 0
    samples = Path(RUN, "samples.txt").read_text()
    assert samples.count("=== step 2 ===\nsource      a red dog\nprediction  ") == 1
    assert "target" not in samples


def test_a_checkpoint_alone_translates(trained, capsys):
    forget_training()
    shutil.move(f"{RUN}/checkpoints/last.ckpt", "x.ckpt")
    shutil.rmtree("runs")
    assert main(["generate", "x.ckpt", "--prompt", "a red dog runs"]) == 0
    printed = capsys.readouterr().out
    model = Seq2Seq.load_from_checkpoint("x.ckpt", weights_only=True).eval()
    assert type(model.source_tokenizer) is BPE
    (expected,) = model.predict_step([{"id": 0, "text": "a red dog runs", "problem": None}], 0)
    assert printed == expected["text"] + "\n"
    assert main(["generate", "x.ckpt", "--prompt", "a red dog", "--max_new_tokens", "3", "--temperature", "2"]) == 0
    assert main(["generate", "x.ckpt"]) == 2
    assert "generate needs a source to translate: --prompt" in capsys.readouterr().err


LINES = [b"a red dog runs", b"", b"old \xff man", b"  ", b"\xc3\xa9 man sits", b"a", b"dog dog dog dog dog dog dog dog"]


def test_every_line_of_a_source_has_a_line_of_output(trained, capsys):
    forget_training()
    predict = ["predict", *BEST, "--data.predict_source", "new.en", "--output"]
    Path("new.en").write_bytes(b"\n".join(LINES) + b"\n")
    assert main([*predict, "out.de"]) == 0
    told = capsys.readouterr()
    place = "--data.predict_source new.en: line 3"
    assert told.err == f"{place}: byte 4 of the line is not UTF-8; save the file as UTF-8\n"
    assert "output=out.de" in told.out
    lines = Path("out.de").read_bytes().removesuffix(b"\n").split(b"\n")
    assert len(lines) == len(LINES)
    assert [number for number, line in enumerate(lines) if not line] == [1, 2, 3]
    # The module answers the same.
    model = Seq2Seq.load_from_checkpoint(f"{RUN}/checkpoints/best.ckpt", weights_only=True).eval()
    for line, answer in zip(LINES, lines, strict=True):
        text = line.decode("utf-8", "ignore") if b"\xff" not in line else ""
        (expected,) = model.predict_step([{"id": 0, "text": text, "problem": None}], 0)
        assert answer.decode() == expected["text"].replace("\n", " ").replace("\r", " ")
    # Line ends of other systems, and no line end at the end.
    Path("new.en").write_bytes(b"\r\n".join(LINES))
    assert main([*predict, "windows.de"]) == 0
    assert Path("windows.de").read_bytes() == Path("out.de").read_bytes()
    assert main([*predict, "out.jsonl"]) == 0
    results = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [result["id"] for result in results] == list(range(len(LINES)))
    assert [result["source"] for result in results] == ["" if b"\xff" in line else line.decode() for line in LINES]
    assert [result["text"] for result in results if result["text"]] == [line.decode() for line in lines if line]
    assert results[1] == {"id": 1, "source": "", "text": "", "score": 0.0, "problem": None}
    assert "not UTF-8" in results[2]["problem"]
    for result in results:
        if result["text"]:
            assert result["score"] == pytest.approx(score(model, result["source"]), abs=2e-4)
    assert not list(Path().glob(".out*"))


def score(model, text):
    """Return the log-probability of the greedy translation, token by token without a cache."""
    src = torch.tensor([[*model.source_tokenizer.encode(text), 2]])
    ids, total = [1], 0.0
    with torch.no_grad():
        while ids[-1] != 2 and len(ids) <= 2 * src.shape[1] + 32:
            chances = model.network(src, torch.tensor([ids]))[0, -1].log_softmax(-1)
            ids.append(int(chances.argmax()))
            total += chances[ids[-1]].item()
    return total


def test_two_processes_measure_and_write_what_one_does(trained, capsys):
    Path("new.en").write_bytes(b"\n".join(LINES * 3) + b"\n")
    predict = ["predict", *BEST, "--data.predict_source", "new.en", "--data.max_tokens", "32", "--output"]
    assert main([*predict, "one.de"]) == 0
    capsys.readouterr()
    assert main(["validate", *BEST, "--data.max_tokens", "32"]) == 0
    alone = metrics(capsys.readouterr().out)
    assert len(alone) == 6
    assert metrics(in_two_processes("validate", *BEST, "--data.max_tokens", "32").stdout) == alone
    done = in_two_processes(*predict, "two.de")
    assert Path("two.de").read_bytes() == Path("one.de").read_bytes()
    assert len(Path("two.de").read_bytes().split(b"\n")) == 3 * len(LINES) + 1
    assert done.stderr.count("is not UTF-8") == 3
    assert not list(Path().glob(".two*"))


def test_predictions_that_cannot_be_written(trained, capsys):
    Path("new.en").write_bytes(b"\n".join(LINES) + b"\n")
    predict = ["predict", *BEST, "--data.predict_source", "new.en", "--output"]
    assert main([*predict, "none/out.de"]) == 2
    told = capsys.readouterr().err
    assert "--output none/out.de: there is no folder none; make it first" in told and told.count("\n") == 1
    Path("out.de").write_text("before\n")
    before = list_names(".")
    done = process(*predict, "out.de", size=100)
    assert done.returncode == 2, done.stderr
    assert "--output out.de cannot be written (File too large); make room, or name another file" in done.stderr
    assert "Traceback" not in done.stderr
    assert Path("out.de").read_text() == "before\n"
    assert list_names(".") == before


def test_sources_that_are_not_there(trained, capsys):
    assert main(["predict", *BEST, "--data.predict_source", "new.en", "--output", "out.de"]) == 2
    assert "--data.predict_source new.en: no such file" in capsys.readouterr().err
    assert "out.de" not in list_names(".")


def test_info_knows_both_sides(trained, capsys):
    assert main(["info", "runs/pairs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = {line[:18].rstrip(): line[18:] for line in lines}
    assert start["kind"] == "Seq2Seq"
    assert start["source tokenizer"] == start["target tokenizer"] == "BPE: vocab_size 280, specials pairs"
    assert start["vocab"] == "source 280, target 280, pad 0, start 1, end 2"
    assert start["encoder"].startswith("Encoder: dim 16, depth 1, ")
    assert start["decoder"].startswith("Decoder: dim 16, depth 1, ")
    assert start["data"].startswith("ParallelText: path pairs.en, target_path pairs.de, ")
    assert main(["info", "runs/pairs", "--tree", "--seq_len", "8"]) == 0
    tree = capsys.readouterr().out
    model = Seq2Seq.load_from_checkpoint(f"{RUN}/checkpoints/best.ckpt", weights_only=True)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert tree.splitlines()[len(lines) + 2].split()[:2] == ["encoder_decoder", "EncoderDecoder"]
    embedded = 2 * 280 * 16
    assert f"parameters     {count:,}, {count - embedded:,} without embeddings" in tree
    assert "cross_attention" in tree
    assert main(["info", "runs/pairs", "--tree"]) == 2
    assert "does not say how long its rows are; give --seq_len" in capsys.readouterr().err


def bad_input(name):
    """Return invalid options of a fit."""
    if name == "lines":
        with open("pairs.de", "a") as file:
            file.write("zuviel\n")
    elif name == "empty":
        Path("pairs.de").write_bytes(b"")
    elif name == "field":
        Path("pairs.jsonl").write_text('{"en": "a", "de": "ein"}\n{"en": "dog"}\n')
        return ["--data.path", "pairs.jsonl", "--data.target_path", "null", "--data.fields", "[en, de]"]
    elif name == "shared":
        return ["--data.shared_tokenizer", "false", "--model.shared_embedding", "true"]
    elif name == "language model":
        return ["--model", "LanguageModel"]
    elif name == "text":
        return ["--data", "TextFiles", "--data.path", "pairs.en", "--data.seq_len", "8"]
    return []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lines", "pairs.en has 60 lines, but pairs.de has 61; give two files"),
        ("empty", "pairs.de is empty; give pairs"),
        ("field", "pairs.jsonl, line 2"),
        ("shared", "ids of source and target mean different things: the source has id 2"),
        ("language model", "--model LanguageModel cannot read --data ParallelText, which serves pairs of a source"),
        ("text", "--model Seq2Seq cannot read --data TextFiles, which serves text without targets; set --model"),
    ],
)
def test_what_cannot_be_trained_on_gets_one_sentence(fresh, capsys, name, said):
    assert main(["fit", "-c", "pairs.yaml", *bad_input(name)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not Path("runs").exists()


def test_cases_d19_weights_keep_what_their_ids_mean(trained, capsys):
    start = ["fit", "-c", "pairs.yaml", "--init_from", RUN, "--name", "next", "--trainer.max_steps", "3"]
    assert main(start) == 0
    for name in ("pairs.en", "pairs.de"):
        Path(f"other.{name}").write_text(Path(name).read_text()[::-1].strip() + "\n", encoding="utf-8")
    capsys.readouterr()
    other = ["--name", "other", "--data.path", "other.pairs.en", "--data.target_path", "other.pairs.de"]
    assert main([*start, *other]) == 2
    said = r"source tokenizer is not the one that the weights were trained with, but id \d+ is '.+' instead of '"
    assert re.search(said, capsys.readouterr().err)
    assert not Path("runs/other").exists()
    learned = f"--data.tokenizer.init_args.file={RUN}/source_tokenizer.json"
    assert main([*start, *other, learned]) == 0
    assert main([*start, "--name", "deep", "--model.encoder.dropout", "0.5", "--model.context_dropout", "0.1"]) == 0
    told = capsys.readouterr().out
    assert "--model.encoder.dropout is 0.5 here, 0.0 in the checkpoint" in told
    assert "--model.context_dropout is 0.1 here, 0.0 in the checkpoint" in told


def test_predictions_do_not_replace_what_they_are_of(trained, capsys):
    Path("new.en").write_text("a dog\n")
    assert main(["predict", *BEST, "--data.predict_source", "new.en", "--output", "./new.en"]) == 2
    assert "--output new.en is --data.predict_source too; name another file" in capsys.readouterr().err
    assert Path("new.en").read_text() == "a dog\n"


def test_positions_must_reach_as_far_as_the_texts(fresh, capsys):
    Path("short.yaml").write_text(
        "model: {init_args: {encoder: {embeddings: [{class_path: LearnedPositions, init_args: {max_length: 6}}]}}}\n"
    )
    assert main(["fit", "-c", "pairs.yaml", "-c", "short.yaml"]) == 2
    said = "but the encoder's positions reach only 6 (max_length of its embeddings); raise that, or set"
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()
    assert main(["fit", "-c", "pairs.yaml", "-c", "short.yaml", "--data.max_length", "5"]) == 0


def test_a_source_that_is_too_long_is_cut_and_reported(trained, capsys):
    Path("new.en").write_text("a dog\n" + "a red old dog runs " * 60 + "\n")
    predict = ["predict", *BEST, "--data.predict_source", "new.en", "--output", "out.de", "--data.max_length", "20"]
    assert main(predict) == 0
    assert re.fullmatch(
        r"line 2: it has \d+ tokens; only the first 20 are used \(max_length\)\n", capsys.readouterr().err
    )
    assert len(Path("out.de").read_text().splitlines()) == 2


@pytest.mark.slow
def test_pairs_of_many_lengths_compile(fresh):
    done = process("fit", "-c", "pairs.yaml", "--model.compile.backend=eager", "--model.compile.dynamic=true")
    assert done.returncode == 0, done.stderr
    assert "val/bleu=" in done.stdout


WAYS = {
    "greedy": [],
    "beams": [
        *["--sampling.method", "BeamSearch", "--sampling.method.beams", "3", "--sampling.batch", "4"],
        "--inference.weights=int8",
    ],
    "sampled": [
        *["--sampling.temperature", "1", "--sampling.seed", "3", "--sampling.max_new_tokens", "9"],
        "--sampling.stop=[e]",
    ],
    "guided": ["--inference.guidance", "1.5", "--sampling.max_new_tokens", "9"],
}
CUT = ["--data.max_length", "20"]


@pytest.fixture
def odd_pairs(trained):
    """Write a test split with blank, equal and long sources."""
    sources = ["a red dog", "", "a red dog", " \t\u3000", "dog " * 30, "a red dog", "old man"]
    targets = ["roter Hund", "", "ein Hund", "", "Hund", "ein roter Hund", "alter Mann"]
    Path("odd.en").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    Path("odd.de").write_text("".join(f"{line}\n" for line in targets), encoding="utf-8")
    return targets


@pytest.mark.parametrize("way", WAYS)
def test_cases_d3_d4_what_is_measured_is_what_predict_writes(odd_pairs, capsys, way):
    pairs = ["--data.test", "odd.en", "--data.test_target_path", "odd.de", *CUT]
    assert main(["test", *BEST, *pairs, *WAYS[way]]) == 0
    printed = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if line.startswith("test/"))
    predict = ["predict", *BEST, "--data.predict_source", "odd.en", "--output", "out.jsonl", *CUT, *WAYS[way]]
    assert main(predict) == 0
    texts = [json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()]
    assert texts[1] == texts[3] == ""
    bleu, chrf = (each(texts, [odd_pairs]) for each in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
    assert float(printed["test/bleu"]) == pytest.approx(bleu.score, abs=1e-5)
    assert float(printed["test/chrf"]) == pytest.approx(chrf.score, abs=1e-5)
    # A blank source is matched by a blank target.
    assert float(printed["test/exact_match"]) == pytest.approx(2 / 7, abs=1e-6)
    if way == "greedy":
        pairs = [option.replace("test", "validation") for option in pairs]
        assert main(["validate", *BEST, *pairs]) == 0
        measured = dict(line.split("=") for line in metrics(capsys.readouterr().out))
        assert measured == {name.replace("test/", "val/"): value for name, value in printed.items()}
    else:
        assert texts != predicted_greedily(predict)


def predicted_greedily(predict):
    assert main(predict[:11]) == 0
    return [json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["fit", "-c", "pairs.yaml", "--sampling.temperature", "1"], "fit does not use --sampling.temperature, an"),
        (["fit", "-c", "pairs.yaml", "--inference.weights=int8"], "of predict, validate and test; omit it"),
        (["fit", "-c", "pairs.yaml", "--output", "x"], "fit does not use --output, an option of predict; omit it"),
        (["validate", *BEST, "--output=x"], "validate does not use --output, an option of predict; omit it"),
        (["test", *BEST, "--checkpoint_every", "3"], "test does not use --checkpoint_every, an option of fit; omit it"),
        (["predict", *BEST, "--output", "x", "--init_from", "runs/pairs"], "predict does not use --init_from"),
        (["test", *BEST, "--sample_text", "null"], "test does not use --sample_text, an option of fit; omit it"),
        (
            ["test", *BEST, "--sampling.method", "BeamSearch", "--sampling.method.n_best", "2"],
            "sampling: test measures one sequence of each prompt or source, but 2 are requested (num_return_sequences, "
            "or n_best of the method); request one",
        ),
    ],
)  # fmt: skip
def test_cases_d4_options_that_a_command_does_not_use_are_refused(trained, capsys, command, said):
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert said in line
    assert list_names("runs/pairs") == {"0"}


def test_cases_d4_a_config_serves_all_commands(trained, capsys):
    """Options of generation in a config are those of later commands; a fit validates greedily."""
    options = "sampling: {method: {class_path: BeamSearch, init_args: {n_best: 2}}}\ninference: {weights: int8}\n"
    Path("decoding.yaml").write_text(options + "output: out.de\n")
    command = ["fit", "-c", "pairs.yaml", "-c", "decoding.yaml"]
    assert main(command) == 0
    assert [row["val/chrf"] for row in read_rows("runs/pairs/1")] == [row["val/chrf"] for row in read_rows(RUN)]


@pytest.mark.parametrize(
    ("option", "lost"),
    [
        (["--sampling.method", "BeamSearch", "--sampling.method.n_best", "3"], "3 sequences of each source"),
        (["--sampling.num_return_sequences=2", "--sampling.temperature=1"], "2 sequences of each source"),
        (["--sampling.log_probs", "true"], "log_probs"),
    ],
)
def test_cases_d18_results_that_a_line_does_not_hold_are_refused(odd_pairs, capsys, option, lost):
    predict = ["predict", *BEST, "--data.predict_source", "odd.en", *CUT, *option, "--output"]
    assert main([*predict, "x.txt"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lightning-xt: error: --output x.txt holds one line of text for each source, but {lost} are requested; name a "
        "file that ends in .jsonl, or omit them"
    )
    assert not Path("x.txt").exists()
    assert main([*predict, "x.jsonl"]) == 0
    first = json.loads(Path("x.jsonl").read_text().splitlines()[0])
    assert len(first.get("sequences", [])) == (0 if lost == "log_probs" else int(lost[0]))


def test_cases_d12_a_long_source_is_cut_alike_by_all_commands(trained, capsys, caplog):
    """The checkpoint knows how long a source the model was trained on, whatever the batches of a later command."""
    own = torch.load(f"{RUN}/checkpoints/best.ckpt", weights_only=True)["lightning_xt"]
    assert own["trained_length"] == 255
    text = "x" * 300
    said = "it has 300 tokens; only the first 254 are used (max_length)"
    Path("long.en").write_text(f"a dog\n{text}\n")
    forget_training()
    predict = ["predict", *BEST, "--data.predict_source", "long.en", "--output", "out.de"]
    assert main([*predict, "--sampling.max_new_tokens", "6", "--data.max_tokens", "64"]) == 0
    assert capsys.readouterr().err == f"line 2: {said}\n"
    expected = Path("out.de").read_text().splitlines()[1]
    assert main(["generate", RUN, "--prompt", text, "--max_new_tokens", "6"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{expected}\n", f"{said}\n")
    model = Seq2Seq.load_from_checkpoint(f"{RUN}/checkpoints/best.ckpt", weights_only=True).eval()
    caplog.clear()
    with caplog.at_level("INFO"):
        assert model.translate(text, max_new_tokens=6) == expected
    assert caplog.messages == [f"line 1: {said}"]
    # A source beyond the limit differs in what is read only.
    assert model.translate("x" * 254, max_new_tokens=6) == expected


def test_cases_n12_messages_offer_what_helps(trained, capsys):
    predict = ["predict", *BEST, "--data.predict_prompts", "p.txt", "--output", "out.de"]
    for command, said in (
        (predict, "--data: unknown option of ParallelText 'predict_prompts'; did you mean predict_source?"),
        (
            ["fit", "-c", "pairs.yaml", "--trainer.max_steps", "0"],
            "--trainer.max_steps is 0, so nothing would be trained; give at least 1 optimizer step",
        ),
    ):
        assert main(command) == 2
        assert capsys.readouterr().err == f"lightning-xt: error: {said}\n"
