"""Prompts of `predict`."""

import gzip
import json

import pytest

from lightning_xt.data.pairs.source_files import read_sources
from lightning_xt.data.prompt_files import read_prompts
from lightning_xt.data.text.standard_library import StandardLibrary


def test_one_prompt_a_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("def main(\r\n \u20ac\u2028x\na\rb\nlast".encode())
    expected = ["def main(", " \u20ac\u2028x", "a\rb", "last"]
    assert read_prompts(str(file)) == [{"id": n, "prompt": text} for n, text in enumerate(expected)]
    file.write_bytes(file.read_bytes() + b"\n")
    assert len(read_prompts(str(file))) == 4


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
@pytest.mark.parametrize("name", ["x.txt", "x.gz", "x.TXT.GZ", "x.jsonl", "x.JSONL.gz", "x.ndjson"])
def test_cases_r14_every_option_reads_the_same_prompts(tmp_path, name, end):
    texts = ["the", "\u00e9 fox ", "a\tb"]
    lines = [json.dumps({"prompt": text}) if "j" in name.lower() else text for text in texts]
    content = b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + end
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    file = str(tmp_path / name)
    assert [each["prompt"] for each in read_prompts(file)] == texts
    assert read_prompts(file, "--prompts", may_be_empty=True, standard_input=True) == read_prompts(file)
    assert [each["text"] for each in read_sources(file, "prompt")] == texts


def test_each_process_takes_its_share_and_needs_no_corpus(tmp_path, monkeypatch):
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"prompt {n}\n" for n in range(7)))
    monkeypatch.setattr(StandardLibrary, "prepare", lambda self: pytest.fail("the corpus was touched"))
    taken = []
    for rank in range(2):
        monkeypatch.setattr(StandardLibrary, "rank_and_world", (rank, 2))
        data = StandardLibrary(batch_size=2, predict_prompts=str(file))
        data.setup("predict")
        batches = list(data.predict_dataloader())
        assert [len(batch) for batch in batches] == ([2, 2] if rank == 0 else [2, 1])
        taken.append([prompt["id"] for batch in batches for prompt in batch])
    assert taken == [[0, 2, 4, 6], [1, 3, 5]]


def test_predict_without_prompts():
    with pytest.raises(ValueError, match=r"--data.predict_prompts FILE"):
        StandardLibrary().setup("predict")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data.predict_prompts .*none.txt: no such file"):
        StandardLibrary(predict_prompts=str(tmp_path / "none.txt")).setup("predict")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; write one prompt per line"),
        (b"\xef\xbb\xbf", "the file is empty; write one prompt per line"),
        (b"one\n\xff\n", "line 2: byte 0 of the line is not UTF-8; save the file as UTF-8"),
        (b"one\n\nthree\n", "line 2 is empty"),
    ],
)
def test_useless_files(tmp_path, content, message):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(str(file))


def test_prompts_of_json_lines_may_hold_line_ends(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a\\nb", "note": 1}\n{"prompt": "é"}\n', encoding="utf-8")
    assert read_prompts(str(file)) == [{"id": 0, "prompt": "a\nb"}, {"id": 1, "prompt": "é"}]


def test_where_a_text_is_drawn_from_nothing_a_prompt_may_be_empty(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n", encoding="utf-8")
    assert [prompt["prompt"] for prompt in read_prompts(str(file), may_be_empty=True)] == ["one", ""]


@pytest.mark.parametrize("step", ["is_file"])
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch, step):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    file = tmp_path / "prompts.txt"
    file.write_text("one\n")
    monkeypatch.setattr(type(file), step, refuse)
    with pytest.raises(ValueError, match=rf"--data.predict_prompts {file}: Permission denied; make it readable"):
        read_prompts(str(file))


@pytest.mark.parametrize("name", ["prompts.txt.gz", "prompts.JSONL.gz"])
def test_compressed_files(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(gzip.compress(b'{"prompt": "a"}\n'))
    assert read_prompts(str(file)) == [{"id": 0, "prompt": "a" if "JSON" in name else '{"prompt": "a"}'}]


@pytest.mark.parametrize("name", ["prompts.JSONL", "prompts.ndjson"])
def test_json_lines_are_read_as_a_corpus_of_them_is(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n \t\r\n{"prompt": "b"}')
    # The id is the line, blank ones included.
    assert read_prompts(str(file)) == [{"id": 0, "prompt": "a"}, {"id": 3, "prompt": "b"}]
    file.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=rf"{name}: the file is empty; write one prompt per line"):
        read_prompts(str(file))


def test_a_mark_of_the_encoding_is_not_part_of_a_prompt(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfone\n")
    assert read_prompts(str(file)) == [{"id": 0, "prompt": "one"}]


WRITE = r'write {"prompt": "..."} there$'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": ', r" is not JSON \(Expecting value.*\), but every line must be an object; fix the line$"),
        ("[" * 100_000, r" is not JSON \(maximum recursion"),
        ('{"prompt": "a", "n": ' + "1" * 5000 + "}", r" is not JSON \(Exceeds the limit"),
        ('{"text": "a", "id": 3}', f" has no field 'prompt' but 'text', 'id'; {WRITE}"),
        ("3", " is a number, but every line must be an object; fix the line$"),
        ('{"prompt": 3}', f": the field 'prompt' is a number, not a string; {WRITE}"),
        ('{"prompt": ""}', " is empty, but a model without a start token continues at least one token; write a prompt"),
        ('{"prompt": "\\ud800"}', ": character 0 of the field 'prompt' is half a character"),
    ],
    ids=range(8),
)
def test_json_lines_without_a_prompt(tmp_path, line, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^--data.predict_prompts {file}: line 2{message}"):
        read_prompts(str(file))


def test_cases_d5_repeats_are_counted_over_the_file(tmp_path):
    """Processes and batches have parts of a file, so the reader counts equal prompts."""
    file = tmp_path / "prompts.txt"
    file.write_text("a\nb\na\n\na\n\n")
    repeats = [each.get("repeat", 0) for each in read_prompts(str(file), may_be_empty=True)]
    assert repeats == [0, 0, 1, 0, 2, 1]
    # Blank sources are not decoded.
    assert [each.get("repeat", 0) for each in read_sources(str(file))] == [0, 0, 1, 0, 2, 0]
