"""Text files: a file, a folder, a pattern, and every mistake."""

import gzip
import json
import os
import threading
import zipfile

import pytest

from lightning_xt.data.files import file_digests, reading
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.text import text_files
from lightning_xt.data.text.text_files import TextFiles


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    root = tmp_path / "corpus"
    texts = {"b.txt": b"b" * 5, "a/z.md": b"z" * 3 + b"\n", "a/e.txt": b"", "a/y/q.txt": b"qq", ".hidden": b"no"}
    for name, content in {**texts, ".git/no.txt": b"no"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def read_text(data):
    splits = data.prepare()
    return splits.train.path.read_bytes()


def test_a_folder(corpus):
    assert read_text(TextFiles(str(corpus))) == b"qq\nzzz\nbbbbb"
    assert read_text(TextFiles(str(corpus) + "/")) == b"qq\nzzz\nbbbbb"


def test_a_pattern(corpus, monkeypatch):
    assert read_text(TextFiles(f"{corpus}/**/*.txt")) == b"qq\nbbbbb"
    monkeypatch.setenv("HOME", str(corpus))
    assert read_text(TextFiles("~/**/*.txt")) == b"qq\nbbbbb"
    monkeypatch.chdir(corpus)
    assert read_text(TextFiles("?.txt")) == b"bbbbb"


def test_a_name_that_looks_like_a_pattern(corpus):
    (corpus / "a[1].txt").write_bytes(b"brackets")
    assert find_files("--data.path", str(corpus / "a[1].txt")) == [corpus / "a[1].txt"]


@pytest.mark.parametrize("where", ["here", "data folder", "home"])
def test_cases_r13_brackets_of_a_folder_that_exists_are_literal(tmp_path, monkeypatch, where):
    root = tmp_path / "[a] root?"
    for name in ("odd [1]/a.txt", "odd [1]/deep [x]/b.txt", "odd 1/c.txt", "even/d[2].txt", "even/d2.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(root if where == "here" else tmp_path / "other")
    monkeypatch.setenv("LIGHTNING_XT_DATA" if where == "data folder" else "HOME", str(root))
    begin = "~/" if where == "home" else ""
    expected = {
        "odd [1]/*.txt": ["odd [1]/a.txt"],
        "odd [1]/**/*.txt": ["odd [1]/a.txt", "odd [1]/deep [x]/b.txt"],
        "odd [1]/*/*.txt": ["odd [1]/deep [x]/b.txt"],
        "odd [1]/[a-c].txt": ["odd [1]/a.txt"],
        "odd [0-9]/*.txt": ["odd 1/c.txt"],
        "*/deep [x]/*": ["odd [1]/deep [x]/b.txt"],
        "even/d[2]*": ["even/d2.txt"],
        "even/d[2].txt": ["even/d[2].txt"],
        "?dd [1]/a.*": ["odd [1]/a.txt"],
        "odd*/a.txt": ["odd [1]/a.txt"],
    }
    for pattern, names in expected.items():
        found = [file.resolve() for file in find_files("--data.path", begin + pattern)]
        assert (pattern, found) == (pattern, [root / name for name in names])
    with pytest.raises(FileNotFoundError, match=r"no file matches this pattern"):
        find_files("--data.path", begin + "odd [1]/*.md")


def test_a_single_file_is_not_copied(corpus, tmp_path):
    splits = TextFiles(str(corpus / "b.txt")).prepare()
    assert splits.train.path == corpus / "b.txt"
    assert not (tmp_path / "data").exists()


def test_splits_are_cut_from_the_end(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(range(101)))
    splits = TextFiles(str(file), validation=0.1, test=0.05).prepare()
    # int(101 * 0.1) = 10 and int(101 * 0.05) = 5
    assert [list(split[:]) for split in splits] == [list(range(86)), list(range(86, 96)), list(range(96, 101))]
    splits = TextFiles(str(file), validation=0.0, test=0.0).prepare()
    assert len(splits.train) == 101 and splits.validation is None and splits.test is None


def test_training_without_a_validation_split(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(range(101)))
    data = TextFiles(str(file), validation=0.0, test=0.0, seq_len=7)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"has no validation split; set --data.validation"):
        data.setup("validate")
    with pytest.raises(ValueError, match=r"has no test split; set --data.test"):
        data.setup("test")


def test_blocks_do_not_change_the_text(corpus, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 2)
    assert read_text(TextFiles(str(corpus))) == b"qq\nzzz\nbbbbb"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "none.txt",
            "--data.path .*none.txt: no such file or folder, here or in the data folder .*; check the path",
        ),
        ("*.html", r"--data.path .*\*.html: no file matches this pattern; check it, and quote it"),
        (".git/../void", "--data.path .*void: the folder has no files"),
    ],
)
def test_nothing_there(corpus, path, message):
    (corpus / "void").mkdir()
    (corpus / "void" / ".hidden").write_text("no")
    with pytest.raises(FileNotFoundError, match=message):
        TextFiles(str(corpus / path)).setup("fit")
    for option in ("validation", "test"):
        with pytest.raises(FileNotFoundError, match=message.replace("--data.path", f"--data.{option}")):
            TextFiles(str(corpus), **{option: str(corpus / path)}).setup("fit")


def test_an_empty_option():
    with pytest.raises(FileNotFoundError, match=r"--data.path is empty; name a file, a folder or a pattern"):
        TextFiles("").setup("fit")


DOCUMENTS = {"a.txt": "one", "b/c.txt": "two\n", "d.txt": "", "e.txt": "three\u20ac"}
JOINED = "one\ntwo\nthree\u20ac".encode()
SEPARATED = b"\xffone\xfftwo\n\xff" + "three\u20ac".encode()


def json_lines():
    return "".join(json.dumps({"id": 0, "text": text}) + "\n" for text in DOCUMENTS.values()).encode()


def forms(root):
    """Write the same documents in every format, and return `path` and other options of each."""
    for name, text in DOCUMENTS.items():
        for folder, content in (("plain", text.encode()), ("gz", gzip.compress(text.encode()))):
            path = root / folder / (name + (".gz" if folder == "gz" else ""))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    with zipfile.ZipFile(root / "texts.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in DOCUMENTS.items():
            archive.writestr(f"folder/{name}", text)
    with zipfile.ZipFile(root / "lines.zip", "w") as archive:
        archive.writestr("lines.jsonl", json_lines())
    (root / "lines.ndjson").write_bytes(json_lines())
    (root / "lines.txt").write_bytes(json_lines())
    (root / "lines.jsonl.gz").write_bytes(gzip.compress(json_lines()))
    for path in ("plain", "gz", "texts.zip"):
        yield path, {}
    for path in ("lines.ndjson", "lines.txt", "lines.jsonl.gz", "lines.zip"):
        yield path, {"field": "text"}


def test_every_form_gives_the_same_text(corpus):
    for path, options in forms(corpus / "forms"):
        data = TextFiles(str(corpus / "forms" / path), **options)
        assert (path, read_text(data)) == (path, JOINED)
        assert data.separator is None
        data = TextFiles(str(corpus / "forms" / path), **options, documents="separator")
        assert (path, read_text(data)) == (path, SEPARATED)
        assert data.separator == 255


def test_forms_mix(corpus):
    list(forms(corpus / "forms"))
    (corpus / "forms" / "texts.zip").rename(corpus / "a" / "y" / "texts.zip")
    (corpus / "forms" / "gz" / "e.txt.gz").rename(corpus / "a" / "f.txt.gz")
    # By name: a/e.txt, a/f.txt.gz, a/y/q.txt, a/y/texts.zip, a/z.md.
    assert read_text(TextFiles(str(corpus / "a"))) == b"three\xe2\x82\xac\nqq\n" + JOINED + b"\nzzz\n"


def test_a_separated_file_stays_where_it_lies(corpus):
    file = corpus / "apart.txt"
    file.write_bytes(b"one\xfftwo")
    splits = TextFiles(str(file), documents="separator").prepare()
    assert splits.train.path == file


WORDS = "\u043c\u043e\u044f \u0432\u043e\u043b\u044f"
"""Two Russian words that end in the letter of byte 255 of windows-1251."""


@pytest.mark.parametrize("packed", ["x.txt", "x.txt.gz", "x.zip"])
@pytest.mark.parametrize(("encoding", "text", "place"), [("cp1251", WORDS, 2), ("latin-1", "L'Ha\xff", 4)])
def test_cases_r15_a_text_that_contains_the_separator_is_refused(corpus, packed, encoding, text, place, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 2)
    content, file = text.encode(encoding), corpus / packed
    if packed == "x.zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("in.txt", content)
    else:
        file.write_bytes(gzip.compress(content) if packed.endswith(".gz") else content)
    message = (
        rf"{packed}: byte {place} is 255, which separates documents and never occurs in UTF-8; save the file as UTF-"
    )
    with pytest.raises(ValueError, match=message):
        TextFiles(str(corpus / "[bx].*"), documents="separator").prepare()
    assert content in read_text(TextFiles(str(corpus / "[bx].*")))
    file.write_text(text, encoding="utf-8")
    if packed == "x.txt":
        whole = read_text(TextFiles(str(corpus / "[bx].*"), documents="separator"))
        assert whole == b"\xffbbbbb\xff" + text.encode()


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_cases_r15_a_single_file_is_utf8_between_its_separators(tmp_path, monkeypatch, block):
    monkeypatch.setattr(reading, "BLOCK", block)
    file = tmp_path / "x.txt"
    for content, place in ((WORDS.encode("cp1251"), 0), (b"one\xff" + WORDS.encode()[:5] + b"\xff", 8)):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"x.txt: byte {place} is not UTF-8, so a byte 255 in this file may be text"
        ):
            TextFiles(str(file), documents="separator").prepare()
        assert TextFiles(str(file)).prepare().train.path == file
    file.write_bytes(b"\xff".join([WORDS.encode()] * 3))
    assert TextFiles(str(file), documents="separator").prepare().train.path == file


def test_splits_with_separate_texts(corpus, tmp_path):
    train = corpus / "b.txt"
    (corpus / "test.txt.gz").write_bytes(gzip.compress(b"test"))
    data = TextFiles(str(train), validation=str(corpus / "a"), test=str(corpus / "test.txt.gz"))
    splits = data.prepare()
    assert [bytes(split[:]) for split in splits] == [b"bbbbb", b"qq\nzzz\n", b"test"]
    # The test split is still cut from the training text.
    data = TextFiles(str(train), validation=str(corpus / "a"), test=0.4)
    splits = data.prepare()
    assert [bytes(split[:]) for split in splits] == [b"bbb", b"qq\nzzz\n", b"bb"]
    test = tmp_path / "test"
    test.write_bytes(b"ccccc")
    data = TextFiles(str(train), test=str(test), validation=0.0)
    assert data.prepare().validation is None and data.prepare().test.path == test
    with pytest.raises(ValueError, match=r"test split .* has 5; lower .* or give more text with --data.test, which"):
        data.setup("test") or TextFiles(str(train), test=str(test), seq_len=5).setup("test")


def test_a_field_is_taken_from_every_split(corpus):
    for name in ("train", "validation"):
        (corpus / name).write_bytes(json.dumps({"text": name}).encode())
    options = {"validation": str(corpus / "validation"), "field": "text", "test": 0.0}
    splits = TextFiles(str(corpus / "train"), **options).prepare()
    assert [bytes(split[:]) for split in splits[:2]] == [b"train", b"validation"]
    (corpus / "validation").write_bytes(b'{"text": "good"}\n{"body": 1}')
    with pytest.raises(ValueError, match=r"validation, line 2 has no field 'text' but 'body'; set --data.field"):
        TextFiles(str(corpus / "train"), **options).setup("fit")


@pytest.mark.parametrize("name", ["x.jsonl", "x.NDJSON", "x.jsonl.gz"])
def test_json_lines_without_a_field(corpus, tmp_path, name):
    (corpus / name).write_bytes(b"never looked at")
    for path in (corpus / name, corpus):
        with pytest.raises(ValueError, match=rf"{name} is JSON lines; name the field .* such as --data.field text"):
            TextFiles(str(path)).setup("fit")
    assert not (tmp_path / "data").exists()


def test_json_lines_in_an_archive_without_a_field(corpus):
    list(forms(corpus / "forms"))
    with pytest.raises(ValueError, match=r"^lines.jsonl in .*lines.zip is JSON lines; name the field of the text"):
        TextFiles(str(corpus / "forms" / "lines.zip")).setup("fit")
    with pytest.raises(ValueError, match=r"^lines.jsonl in .*lines.zip, line 1 has no field 'body' but 'id', 'text';"):
        TextFiles(str(corpus / "forms" / "lines.zip"), field="body").setup("fit")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zst", "x.zip.gz"])
def test_other_archives(corpus, name):
    (corpus / name).write_bytes(b"never looked at")
    with pytest.raises(ValueError, match=rf"{name} is an archive, which is not read here; unpack it and name"):
        TextFiles(str(corpus)).setup("fit")


def test_a_file_that_is_cut_off_leaves_nothing(corpus, tmp_path):
    (corpus / "x.gz").write_bytes(gzip.compress(b"text" * 1000)[:-9])
    with pytest.raises(ValueError, match=r"x.gz ends too early: the download or copy was cut off; get it again"):
        TextFiles(str(corpus)).setup("fit")
    assert list((tmp_path / "data" / "prepared").iterdir()) == []


def test_compressed_files_are_read_again_only_when_they_change(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "RECENT", -1.0)
    path = corpus / "x.gz"
    path.write_bytes(gzip.compress(b"first" * 50))
    first = TextFiles(str(path)).prepare()
    # The content counts, not the name; the times of an unchanged file are enough.
    moved = path.rename(corpus / "y.gz")
    with monkeypatch.context() as patched:
        patched.setattr(reading.gzip, "open", lambda *_: pytest.fail("unpacked again"))
        assert TextFiles(str(moved)).prepare().train.path == first.train.path
        patched.setattr(file_digests, "read_raw_blocks", lambda *_: pytest.fail("read again"))
        assert TextFiles(str(moved)).prepare().train.path == first.train.path
    moved.write_bytes(gzip.compress(b"second" * 50))
    assert read_text(TextFiles(str(moved))) == b"second" * 50
    # The same bytes with a name that is not a compressed file's.
    plain = moved.rename(corpus / "y.bin")
    assert read_text(TextFiles(str(corpus / "[yb].*"))).endswith(plain.read_bytes())


def test_a_source_that_changes_while_it_is_read(corpus, tmp_path, monkeypatch):
    path = corpus / "x.gz"
    path.write_bytes(gzip.compress(b"text" * 50))

    def growing(paths, before=text_files.hash_files):
        found = before(paths)
        path.write_bytes(gzip.compress(b"other" * 50))
        return found

    monkeypatch.setattr(text_files, "hash_files", growing)
    with pytest.raises(ValueError, match=r"--data.path .*x.gz changed during reading; start again when it is compl"):
        TextFiles(str(path)).prepare()
    assert list((tmp_path / "data" / "prepared").iterdir()) == []


def test_two_prepare_at_once(corpus, tmp_path, monkeypatch):
    path = corpus / "x.gz"
    path.write_bytes(gzip.compress(b"text" * 5000))
    opened, both = [], threading.Barrier(2)

    def slow(*arguments, open=gzip.open):
        opened.append(1)
        return open(*arguments)

    def store(*arguments, store=text_files.store):
        both.wait(timeout=30)
        return store(*arguments)

    monkeypatch.setattr(reading.gzip, "open", slow)
    monkeypatch.setattr(text_files, "store", store)
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_text(TextFiles(str(path))))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"text" * 5000] * 2 and len(opened) == 1
    assert len(list((tmp_path / "data" / "prepared").iterdir())) == 1


def test_neither_file_nor_folder(corpus):
    os.mkfifo(corpus / "pipe")
    with pytest.raises(ValueError, match=r"--data.path .*pipe is neither a regular file nor a folder"):
        TextFiles(str(corpus / "pipe")).setup("fit")


def test_empty(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--data.path .*e.txt: the file is empty; give text"):
        TextFiles(str(corpus / "a" / "e.txt")).setup("fit")
    (corpus / "e.txt").write_text("")
    with zipfile.ZipFile(corpus / "e.zip", "w") as archive:
        archive.writestr(".hidden", "no")
    for path, content in {"e.gz": gzip.compress(b""), "e.ndj": b"\n \n"}.items():
        (corpus / path).write_bytes(content)
    with pytest.raises(ValueError, match=r"--data.path .*: all 2 files are empty; give text"):
        TextFiles(str(corpus / "**" / "e.txt")).setup("fit")
    assert not (tmp_path / "data").exists()
    for name, field in {"e.gz": None, "e.zip": None, "e.ndj": "text"}.items():
        (corpus / "lines").write_bytes(b'{"text": "x"}')
        train = corpus / ("lines" if field else "b.txt")
        with pytest.raises(ValueError, match=rf"--data.test .*{name}: the file is empty; give text"):
            TextFiles(str(train), test=str(corpus / name), field=field).prepare()
    left = [path.suffix for path in (tmp_path / "data" / "prepared").iterdir() if path.stat().st_size == 0]
    assert left == []


def test_unreadable(corpus, tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reading, "open", refuse, raising=False)
    for path in (corpus / "b.txt", corpus):
        with pytest.raises(ValueError, match=r"cannot read .* \(Permission denied\); make it readable"):
            TextFiles(str(path)).setup("fit")
    assert not (tmp_path / "data").exists()


def test_a_corpus_too_short(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(101))
    # 91 tokens to train on, 5 each for validation and test.
    with pytest.raises(
        ValueError,
        match=r"^--data.seq_len 91 needs at least 92 tokens in a split, but the train split of --data.path .*text has "
        r"91; lower --data.seq_len to at most 90 or give more text$",
    ):
        TextFiles(str(file), seq_len=91).setup("fit")
    message = "the {0} split of --data.path .* has 5; lower --data.seq_len to at most 4 or raise --data.{0}"
    for stage, split in {"fit": "validation", "validate": "validation", "test": "test"}.items():
        with pytest.raises(ValueError, match=message.format(split)):
            TextFiles(str(file), seq_len=5).setup(stage)
    TextFiles(str(file), seq_len=4).setup("fit")
    file.write_bytes(bytes(1))
    with pytest.raises(ValueError, match=r"has 1; give more text"):
        TextFiles(str(file), seq_len=1).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "--data.validation 1.0 is not a fraction: it must be at least 0 and below 1"),
        ({"test": -0.1}, "--data.test -0.1 is not a fraction: it must be at least 0 and below 1"),
        ({"validation": 0.5, "test": 0.5}, r"0.5 and --data.test 0.5 leave nothing"),
        ({"documents": "apart"}, "--data.documents must be joined or separator, not apart; set --data.documents separ"),
        ({"seq_len": 0}, "has --data.seq_len 0, which must be at least 1"),
        ({"batch_size": -2}, "has --data.batch_size -2, which must be at least 1"),
        ({"eval_batch_size": 0}, "has --data.eval_batch_size 0, which must be at least 1"),
        ({"num_workers": -1}, "has --data.num_workers -1, which must be at least 0"),
        ({"stride": 0}, r"--data.stride must be from 1 to --data.seq_len \(256\), not 0"),
        ({"stride": 257}, r"--data.stride must be from 1 to --data.seq_len \(256\), not 257"),
        ({"seed": -1}, "--data.seed must be from 0 to"),
        ({"seed": 2**64}, "--data.seed must be from 0 to"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        TextFiles("anything", **options)


def test_held_out_files_are_not_trained_on(tmp_path):
    for name in ("a", "b", "held"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "held.txt")
    held = str(tmp_path / "held.txt")
    splits = TextFiles(str(tmp_path), validation=held, test=held, seq_len=4).splits
    assert bytes(splits.train[:]) == b"the text of a\nthe text of b\n"
    assert bytes(splits.validation[:]) == bytes(splits.test[:]) == b"the text of held\n"
    with pytest.raises(ValueError, match=r"--data.path .*held.txt names no files besides those of --data.validation"):
        TextFiles(held, validation=held, seq_len=4).prepare()


def test_what_is_not_here_is_looked_for_in_the_data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "books"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("from the data folder")
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for path in ("books/one.txt", "books", "books/*.txt"):
        assert bytes(TextFiles(path, validation=0, test=0).splits.train[:]) == b"from the data folder"
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("from here")
    assert bytes(TextFiles("books", validation=0, test=0).splits.train[:]) == b"from here"


def test_prepared_data_are_not_part_of_a_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "RECENT", -1.0)
    corpus, data = tmp_path / "corpus", tmp_path / "corpus" / "data"
    data.mkdir(parents=True)
    (tmp_path / "linked").symlink_to(data)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "linked"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(corpus))
    (data / "a.txt").write_text("one\n")
    (corpus / "b.txt").write_text("two\n")
    (corpus / "lightning-xt" / "prepared").mkdir(parents=True)
    (corpus / "lightning-xt" / "prepared" / "x.bin").write_text("three\n")
    expected = [corpus / "b.txt", data / "a.txt"]
    for path, count in ((corpus, 2), (f"{corpus}/**", 2), (data, 1), (f"{tmp_path}/linked/**/*", 1)):
        first, again = (TextFiles(str(path), seq_len=1).content_hash for _ in range(2))
        assert first == again and (data / "prepared").is_dir()
        assert len(find_files("--data.path", str(path))) == count
    assert find_files("--data.path", str(corpus)) == expected
    assert find_files("--data.path", f"{corpus}/**") == expected
    # The user may name such a file explicitly.
    (prepared, *_) = (data / "prepared").glob("*.bin")
    assert find_files("--data.path", str(prepared)) == [prepared]


def test_unreadable_files_are_not_skipped(corpus, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    listed, inner, file = os.listdir, corpus / "a", corpus / "a" / "z.md"
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda folder: refuse(folder) if folder == inner else listed(folder))
        with pytest.raises(
            ValueError, match=rf"--data.path {corpus}: cannot read {inner} \(Permission denied\); make it"
        ):
            TextFiles(str(corpus)).setup("fit")
    monkeypatch.setattr(type(file), "is_file", refuse)
    with pytest.raises(
        ValueError, match=rf"--data.path {file}: cannot read {file} \(Permission denied\); make it read"
    ):
        TextFiles(str(file)).setup("fit")


def test_linked_folders_are_followed_once(corpus, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "f.txt").write_text("far")
    (corpus / "a" / "far").symlink_to(tmp_path / "far")
    (corpus / "a" / "y" / "back").symlink_to(corpus)
    names = ["a/e.txt", "a/far/f.txt", "a/y/q.txt", "a/z.md", "b.txt"]
    for path in (corpus, corpus / "**" / "*.*"):
        assert find_files("--data.path", str(path)) == [corpus / name for name in names]
    (tmp_path / "far" / "across").symlink_to(corpus / "a")
    assert find_files("--data.path", str(corpus)) == [corpus / name for name in names]


def test_a_link_that_leads_nowhere(corpus):
    link = corpus / "a" / "link.txt"
    for target in ("gone.txt", "link.txt"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        for path in (corpus, corpus / "a" / "*.txt", link):
            with pytest.raises(FileNotFoundError, match=rf": the link {link} is broken; fix it or remove it"):
                TextFiles(str(path)).setup("fit")
    link.rename(corpus / "a" / ".hidden")
    assert len(find_files("--data.path", str(corpus))) == 4


def test_names_that_are_not_utf_8(corpus):
    name = os.fsdecode(b"b\xff.txt")
    (corpus / name).write_text("text")
    with pytest.raises(ValueError, match=r"^--data.path: the path .*/b\\udcff.txt is not UTF-8; rename the file$"):
        TextFiles(str(corpus / name)).setup("fit")
    # In a folder the file is skipped.
    assert read_text(TextFiles(str(corpus))) == b"qq\nzzz\nbbbbb\ntext"


def test_a_path_is_required() -> None:
    with pytest.raises(ValueError, match=r"^--data.path is required; give it in a config or on the command line$"):
        TextFiles()
