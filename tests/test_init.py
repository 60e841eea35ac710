"""init: a starter config for your own data trains, and refuses data that cannot be trained on."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from lightning_xt.cli import main
from lightning_xt.commands.starter.number_words import spell_english, spell_german, write_pairs
from lightning_xt.commands.starter.starter import count_steps
from lightning_xt.system import cores

TEXT = "the quick brown fox jumps over the lazy dog\n" * 400
SHORT = [
    "--model.decoder.dim", "16", "--model.decoder.depth", "2", "--trainer.max_steps", "2",
    "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false",
    "--model.schedule.warmup_steps", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_config(folder: str) -> dict:
    return yaml.safe_load(Path(folder, "config.yaml").read_text(encoding="utf-8"))


def fail(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["init", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("lightning-xt: error: init: ").rstrip("\n")


def test_a_language_model_on_your_own_text_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("corpus").mkdir()
    Path("corpus/a.txt").write_text(TEXT)
    assert main(["init", "mine", "--path", "corpus"]) == 0
    said = capsys.readouterr().out
    assert "wrote mine/config.yaml" in said and "Found 1 file with 17,600 bytes. Next:" in said
    *_, first, fit, _, generate = said.splitlines()
    assert first == "  lightning-xt fit -c config.yaml -c trainer/debug.yaml"
    assert fit == "  lightning-xt fit -c config.yaml"
    assert generate == "  lightning-xt generate runs/mine --prompt 'the quick '"
    config = read_config("mine")
    assert config["data"]["init_args"]["path"] == str(Path("corpus").absolute())
    assert config["model"]["init_args"]["decoder"]["dropout"] == 0.2
    assert Path("mine/.gitignore").read_text() == "runs/\ncompare.png\nlr.png\nschema.json\n"
    monkeypatch.chdir("mine")
    assert main(["fit", "-c", "config.yaml", *SHORT]) == 0
    assert Path("runs/mine/0/checkpoints/best.ckpt").is_file()


def test_a_translator_on_the_sample_trains(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "--translation"]) == 0
    said = capsys.readouterr().out
    assert "data/pairs.tsv is an example of 10,000 pairs; replace it by your own. Next:" in said
    assert read_config("my-translation")["data"]["init_args"]["tokenizer"] == "SpecialBytes"
    monkeypatch.chdir("my-translation")
    assert Path("data/README.md").is_file()
    small = ["--model.encoder.dim", "16", "--model.encoder.depth", "1"]
    assert main(["fit", "-c", "config.yaml", *SHORT, *small]) == 0
    assert Path("runs/my-translation/0/checkpoints/best.ckpt").is_file()


def test_the_sample_of_text_is_there_to_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    assert Path("my-text/data/sample.txt").stat().st_size > 100_000
    assert read_config("my-text")["data"]["init_args"]["path"] == "data/*.txt"
    assert "is an example of" in capsys.readouterr().out
    # Your own text in the folder is taken without a question.
    Path("other/data").mkdir(parents=True)
    Path("other/data/a.txt").write_text(TEXT)
    Path("other/.gitignore").write_text("mine\n")
    assert main(["init", "other"]) == 0
    assert read_config("other")["data"]["init_args"]["path"] == "data"
    assert Path("other/.gitignore").read_text() == "mine\n"
    assert not Path("other/data/sample.txt").exists()


def test_the_current_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("it's.txt").write_text("\n" + "é ü\n" * 4000)
    assert main(["init", ".", "--path", "it's.txt"]) == 0
    said = capsys.readouterr().out
    assert "cd " not in said
    config = read_config(".")
    assert config["name"] == tmp_path.name
    assert config["data"]["init_args"]["path"] == "it's.txt"
    assert config["sample_text"]["prompts"] == ["é ü "]


@pytest.mark.parametrize("kind", [[], ["--translation"]])
def test_a_first_try_takes_ten_steps(kind: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "mine", *kind]) == 0
    monkeypatch.chdir("mine")
    side = "encoder" if kind else "decoder"
    small = [f"--model.{side}.dim", "16", f"--model.{side}.depth", "2", "--model.decoder.dim", "16"]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "-c", "config.yaml", "-c", "trainer/debug.yaml", *small, *quiet]) == 0


def test_sub_words_are_one_comment_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "mine"]) == 0
    file = Path("mine/config.yaml")
    text = file.read_text()
    assert text.count("    # tokenizer: ") == 1
    file.write_text(text.replace("    # tokenizer: ", "    tokenizer: "))
    chosen = {"class_path": "BPE", "init_args": {"vocab_size": 2048}}
    assert read_config("mine")["data"]["init_args"]["tokenizer"] == chosen
    capsys.readouterr()
    assert main(["fit", "-c", "mine/config.yaml", "--print_config"]) == 0
    assert "vocab_size: 2048" in capsys.readouterr().out


def test_a_folder_of_text_is_not_written_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("corpus/more").mkdir(parents=True)
    Path("corpus/.hidden").touch()
    Path("corpus/more/a.txt").write_text(TEXT)
    way = "run lightning-xt init my-model --path corpus"
    assert fail(capsys, "corpus") == f"corpus holds 1 file; for its text {way}"
    Path("corpus/b.txt").write_text(TEXT)
    assert fail(capsys, "corpus") == f"corpus holds 2 files; for their text {way}"
    assert fail(capsys, "corpus", "--translation").endswith("init my-translator --translation --path corpus")
    Path("my-model").mkdir()
    assert fail(capsys, "corpus").endswith("init my-model-2 --path corpus")
    monkeypatch.chdir("corpus")
    assert fail(capsys, ".").endswith("init ../my-model-2 --path .")
    assert sorted(each.name for each in Path().iterdir()) == [".hidden", "b.txt", "more"]
    # A folder of data, and one without visible files, are what a starter expects.
    Path("data").mkdir()
    assert main(["init", "."]) == 0
    Path("../my-model/.git").mkdir()
    Path("../my-model/.git/HEAD").touch()
    assert main(["init", "../my-model"]) == 0


def test_data_without_their_option(capsys: pytest.CaptureFixture[str]) -> None:
    start = "after the folder a; give data with"
    sides = ["train.en", "train.de"]
    assert fail(capsys, "a", "--translation", *sides) == (
        f"train.en train.de {start} --path train.en --target_path train.de")  # fmt: skip
    assert fail(capsys, "a", "--translation", "--path", *sides) == f"train.de {start} --target_path train.de"
    assert fail(capsys, "a", "corpus") == f"corpus {start} --path corpus"
    assert fail(capsys, "a", "b", "c") == f"b c {start} --path: a file, a folder or a pattern in quotes"
    assert fail(capsys, "a", "b", "--pth", "c").startswith("unrecognized arguments: b --pth c; did you mean --path")


def test_sizes_follow_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.txt").write_text("long text " * 1_000_000)
    assert main(["init", "mine", "--path", "a.txt"]) == 0
    config = read_config("mine")
    assert config["data"]["init_args"]["validation"] == 0.02
    assert config["model"]["init_args"]["decoder"]["dropout"] == 0.0


def test_steps_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "read_core_limit", lambda root: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda number: {0}, raising=False)
    assert count_steps(3200) == 1600
    monkeypatch.setattr("os.sched_getaffinity", lambda number: {0, 1}, raising=False)
    assert count_steps(3200) == 3200
    monkeypatch.setattr(cores, "read_core_limit", lambda root: 1.5)
    assert count_steps(3200) == 1600


def test_json_lines_and_packed_files(capsys: pytest.CaptureFixture[str]) -> None:
    line = json.dumps({"id": 3, "text": "one two three", "title": "x"}) + "\n"
    Path("a.jsonl").write_text(line * 400)
    assert fail(capsys, "--path", "a.jsonl").endswith("the field with their text: --field text or --field title")
    assert main(["init", "mine", "--path", "a.jsonl", "--field", "text"]) == 0
    config = read_config("mine")
    assert config["data"]["init_args"]["field"] == "text"
    assert config["sample_text"]["prompts"] == ["one two "]
    with gzip.open("a.txt.gz", "wb", compresslevel=0) as file:
        file.write(TEXT.encode())
    assert main(["init", "packed", "--path", "*.gz"]) == 0


def test_two_files_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs").mkdir()
    Path("pairs/train.en").write_text("a small dog\n" * 200)
    Path("pairs/train.de").write_text("ein kleiner Hund\n" * 200)
    sentence = fail(capsys, "mine", "--translation", "--path", "pairs")
    assert sentence.endswith("such as --path pairs/train.en --target_path pairs/train.de")
    Path("pairs/valid.en").write_text("a dog\n")
    Path("pairs/valid.de").write_text("ein Hund\n")
    assert fail(capsys, "mine", "--translation", "--path", "pairs") == sentence
    sides = ["--path", "pairs/train.en", "--target_path", "pairs/train.de"]
    assert main(["init", "mine", "--translation", *sides]) == 0
    said = capsys.readouterr().out
    assert "Found 200 pairs. Next:" in said and "--prompt 'a small dog'" in said
    data = read_config("mine")["data"]["init_args"]
    assert data["target_path"] == str(Path("pairs/train.de").absolute())
    assert data["max_length"] == 18
    Path("pairs/both.tsv").write_text("a\tb\n" * 100)
    assert main(["init", "both", "--translation", "--path", "pairs"]) == 0
    assert read_config("both")["data"]["init_args"]["path"].endswith("both.tsv")


def test_much_text_gets_a_tokenizer_of_sub_words() -> None:
    Path("a.tsv").write_text(f"{'a dog ' * 100}\t{'ein Hund ' * 100}\n" * 1500)
    assert main(["init", "mine", "--translation", "--path", "a.tsv"]) == 0
    data = read_config("mine")["data"]["init_args"]
    assert data["tokenizer"] == {"class_path": "BPE", "init_args": {"vocab_size": 4000}}


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.txt").write_text("few words")
    Path("pairs.tsv").write_text("a\tb\n" * 3)
    Path("one.en").write_text("a\n" * 3)
    Path("photo.png").write_bytes(bytes(20_000))
    assert fail(capsys, "--path", "none.txt").startswith("--path none.txt: no such file or folder, here or in")
    assert fail(capsys, "--path", "small.txt") == (
        "--path small.txt holds 9 bytes, which is too little; give 5,500 or more")  # fmt: skip
    assert "photo.png is not text: it holds zero bytes" in fail(capsys, "--path", "photo.png")
    assert "holds 3 pairs, which is too little; give 20 or more" in fail(
        capsys, "--translation", "--path", "pairs.tsv")  # fmt: skip
    assert "name the file of their targets with --target_path" in fail(capsys, "--translation", "--path", "one.en")
    assert fail(capsys, "--target_path", "a").startswith("--target_path a is for a translator; add --translation")
    assert "needs the file of its sources" in fail(capsys, "--translation", "--target_path", "a")
    assert fail(capsys, "--field", "a").startswith("--field a is for JSON lines of a language model")
    assert fail(capsys, "small.txt") == "small.txt is a file; give a folder"
    Path("there").mkdir()
    Path("there/config.yaml").touch()
    assert (
        fail(capsys, "there") == "there/config.yaml is there already, and nothing is overwritten; give another folder"
    )
    Path("hidden/data").mkdir(parents=True)
    Path("hidden/data/sample.txt").symlink_to("none")
    Path("hidden/data").rename("hidden/other")
    Path("hidden/data").symlink_to("other")
    assert "hidden/data" in fail(capsys, "hidden")


def test_numbers_in_words() -> None:
    assert spell_english(9321) == "nine thousand three hundred and twenty-one"
    assert spell_english(7001) == "seven thousand and one"
    assert spell_german(9321) == "neuntausenddreihunderteinundzwanzig"
    assert [spell_german(each) for each in (0, 1, 21, 101, 1000)] == [
        "null", "eins", "einundzwanzig", "einhunderteins", "eintausend"]  # fmt: skip
    lines = write_pairs().splitlines()
    assert len(set(lines)) == 10_000
    assert len({line.partition("\t")[2] for line in lines}) == 10_000
