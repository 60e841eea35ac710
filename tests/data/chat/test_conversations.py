"""Conversations from files: their ids and masks, rows, splits, and files that are refused."""

import gzip
import json
import re
from functools import partial

import made_tokenizers
import numpy as np
import pytest
import torch

from lightning_xt.data.chat.chat_templates import find_template
from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.chat.encoded_conversations import encode_spans
from lightning_xt.data.chat.packed_rows import pack
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile

END = 255
TALK = [("system", "Add."), ("user", "1+1"), ("assistant", "2"), ("user", "+1"), ("assistant", "3")]
CHAT = {"messages": [{"role": role, "content": content} for role, content in TALK]}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def write(*records, name="chat.jsonl"):
    lines = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records)
    if name.endswith(".gz"):
        with gzip.open(name, "wt", encoding="utf-8") as file:
            file.write(lines)
    else:
        with open(name, "w", encoding="utf-8") as file:
            file.write(lines)
    return name


def pairs(*numbers):
    return [{"prompt": f"{n}+0", "response": "=" * n} for n in numbers]


def open_data(path, *, stage="fit", **options):
    data = Conversations(path, **{"validation": 0, "test": 0, "seq_len": 80, "batch_size": 1, **options})
    data.setup(stage)
    return data


def read_first(data):
    batch = next(iter(data.train_dataloader()))
    return batch.tokens[0], batch.scored[0], batch.documents[0]


def list_examples(batches):
    """Return each example's ids and the flags of those that count, of all rows."""
    found = []
    for tokens, scored, documents in (row for batch in batches for row in zip(*batch, strict=True)):
        flags = torch.cat((torch.zeros(1, dtype=torch.bool), scored))
        # The last id is one more of an example, or padding.
        places = torch.cat((documents, documents[-1:] + (not scored[-1])))
        for number in range(int(places.max()) + 1):
            chosen = places == number
            if flags[chosen].any():
                found.append((tuple(tokens[chosen].tolist()), tuple(flags[chosen].tolist())))
    return sorted(found)


def test_the_ids_and_the_mask_of_a_row():
    data = open_data(write({"prompt": "1+1", "response": "2"}), seq_len=30)
    tokens, scored, documents = read_first(data)
    text = b"\xffUser: 1+1\nAssistant: 2\xff"
    assert bytes(tokens.tolist()) == text + bytes(31 - len(text))
    assert bytes(tokens[1:][scored].tolist()) == b"2\xff"
    assert documents.tolist() == [0] * len(text) + [1] * (30 - len(text))
    assert data.vocab == {"source": 256, "target": 256, "pad": None, "start": END, "end": END, "separator": None}


def test_every_response_of_a_conversation_counts():
    tokens, scored, _ = read_first(open_data(write(CHAT)))
    assert bytes(tokens.tolist()).startswith(b"\xffAdd.\n\nUser: 1+1\nAssistant: 2\nUser: +1\nAssistant: 3\xff")
    assert bytes(tokens[1:][scored].tolist()) == b"2\nUser:3\xff"


def test_special_ids_of_a_tokenizer():
    tokens, scored, _ = read_first(open_data(write(*pairs(1)), tokenizer=SpecialBytes, template="plain", seq_len=7))
    assert tokens.tolist() == [1, *(byte + 3 for byte in b"1+0="), 2, 0, 0] and scored.tolist() == [False] * 3 + [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("template", ["turns", "chatml", "alpaca", "plain"])
@pytest.mark.parametrize("kind", ["bpe", "gpt2", "llama2", "bytes"])
def test_a_server_reads_the_ids_of_training(template, kind):
    tokenizer = {
        "bpe": partial(BPE, vocab_size=300),
        "bytes": None,
        "gpt2": partial(TokenizerFile, model=made_tokenizers.make_gpt2().to_str()),
        "llama2": partial(TokenizerFile, model=made_tokenizers.make_llama2().to_str()),
    }[kind]
    data = open_data(write(CHAT), template=template, tokenizer=tokenizer, seq_len=200)
    tokens, scored, _ = read_first(data)
    starts = (scored & ~torch.nn.functional.pad(scored, (1, -1))).nonzero()[:, 0] + 1
    asked = [encode_spans(data.tokenizer, find_template(template).split(TALK[:number])) for number in (2, 4)]
    assert [tokens[:start].tolist() for start in starts] == asked
    assert tokens[0] == data.tokenizer.start and data.tokenizer.end in tokens[1:][scored]


def test_without_an_end_token_a_stop_string_ends_the_last_response():
    described = json.loads(made_tokenizers.make_gpt2().to_str())
    tokenizer = partial(TokenizerFile, model=json.dumps({**described, "added_tokens": []}))
    data = open_data(write(*pairs(1)), tokenizer=tokenizer, seq_len=60)
    tokens, scored, _ = read_first(data)
    assert data.tokenizer.end is None and data.tokenizer.decode(tokens[1:][scored].tolist()) == "=\nUser:"


def test_other_fields_and_several_files():
    write({"question": "a", "answer": "b"}, "", name="one.jsonl.gz")
    write({"talk": [{"from": "user", "value": "c"}, {"from": "assistant", "value": "d"}]}, name="two.ndjson")
    names = {"prompt": "question", "response": "answer", "messages": "talk", "role": "from", "content": "value"}
    data = open_data("*n*", fields=names, template="plain", seq_len=7)
    assert list_examples([next(iter(data.train_dataloader()))]) == [
        ((END, 97, 98, END), (False, False, True, True)),
        ((END, 99, 100, END), (False, False, True, True)),
    ]


def test_messages_after_the_last_response_are_not_read():
    longer = {"messages": [*CHAT["messages"], {"role": "user", "content": "bye"}]}
    first, second = (read_first(open_data(write(each)))[0] for each in (CHAT, longer))
    assert torch.equal(first, second)


def test_rows_hold_whole_examples():
    lengths = np.random.default_rng(0).integers(1, 33, 499)
    rows = pack(lengths, 32)
    assert sorted(number for row in rows for number in row) == list(range(499))
    assert all(sum(lengths[row]) <= 32 for row in rows)
    assert sum(lengths) > 0.94 * 32 * len(rows)
    assert pack(np.asarray([3, 3, 2, 2]), 5) == [[0, 3], [1, 2]]


def test_the_order_of_rows_depends_on_the_seed_alone():
    path = write(*pairs(*range(1, 30)))

    def stream(world, batch_size, seed=3, first=0):
        data = open_data(path, seq_len=60, batch_size=batch_size, seed=seed)
        parts = [data.for_process(rank, world) for rank in range(world)]
        for part in parts:
            part.load_state_dict({"samples_seen": first})
        loaders = [iter(part.train_dataloader()) for part in parts]
        rows = [row for _ in range(24 // (world * batch_size)) for loader in loaders for row in next(loader).tokens]
        return torch.stack(rows)

    one = stream(1, 2)
    assert torch.equal(one, stream(2, 3)) and torch.equal(one, stream(3, 1))
    assert torch.equal(one[6:], stream(2, 1, first=6)[:-6])
    assert not torch.equal(one, stream(1, 2, seed=4))
    data = open_data(path, seq_len=60)
    rows = int(re.search(r"in (\d+) rows", data.describe_size(1))[1])
    batches = iter(data.train_dataloader())
    epochs = [[next(batches) for _ in range(rows)] for _ in range(2)]
    assert list_examples(epochs[0]) == list_examples(epochs[1]) and len(list_examples(epochs[0])) == 29
    assert not all(torch.equal(a.tokens, b.tokens) for a, b in zip(*epochs, strict=True))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_takes_every_example_once(world):
    data = open_data(write(*pairs(*range(1, 41))), validation=0.5, test=0.1, seq_len=70, eval_batch_size=2)
    split = [data.for_process(rank, world) for rank in range(world)]
    loaders = [list(part.val_dataloader()) for part in split]
    assert len({len(loader) for loader in loaders}) == 1
    found = list_examples(batch for loader in loaders for batch in loader)
    assert [bytes(ids) for ids, _ in found] == sorted(
        b"\xffUser: %d+0\nAssistant: %s\xff" % (n, b"=" * n) for n in range(17, 37)
    )
    assert len(list_examples(data.test_dataloader())) == 4
    scored = sum(int(batch.scored.sum()) for loader in loaders for batch in loader)
    # The end id counts as a token without bytes.
    assert data.bytes_per_token("validation") == pytest.approx((scored - 20) / scored)
    assert data.bytes_per_token("train") is None


def test_chunks_that_are_encoded_together_do_not_matter(monkeypatch):
    path = write(*pairs(*range(1, 30)), LONG, CHAT)
    one = open_data(path)
    monkeypatch.setattr("lightning_xt.data.chat.encoded_conversations.CHUNK", 3)
    batches = [iter(data.train_dataloader()) for data in (one, open_data(path))]
    assert all(torch.equal(*rows) for _ in range(9) for rows in zip(*map(next, batches), strict=True))
    assert one.describe_size(1) == open_data(path).describe_size(1)


def test_splits_with_files_are_not_trained_on():
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        write(*pairs(number), name=f"{name}.jsonl")
    data = open_data("*.jsonl", validation="b.jsonl", test="c.jsonl", template="plain", seq_len=9)
    assert [bytes(ids) for ids, _ in list_examples([next(iter(data.train_dataloader()))])] == [b"\xff1+0=\xff"]
    assert [bytes(ids) for ids, _ in list_examples(data.val_dataloader())] == [b"\xff2+0==\xff"]
    assert [bytes(ids) for ids, _ in list_examples(data.test_dataloader())] == [b"\xff3+0===\xff"]
    other = open_data("*.jsonl", validation="b.jsonl", test=0, template="plain", seq_len=9)
    assert other.content_hash != data.content_hash
    with pytest.raises(ValueError, match="names no files besides those of"):
        open_data("b.jsonl", validation="b.jsonl")


def test_a_tokenizer_learns_on_the_training_split():
    path = write(*[{"prompt": f"{n} and {n}", "response": "more and more"} for n in range(30)])
    data = Conversations(path, tokenizer=partial(BPE, vocab_size=300), seq_len=60)
    data.setup("validate")
    assert not data.tokenizer.is_ready
    trained = Conversations(path, tokenizer=partial(BPE, vocab_size=300), seq_len=60)
    trained.setup("fit")
    data.use_tokenizer(trained.tokenizer)
    assert list_examples(data.val_dataloader()) == list_examples(trained.val_dataloader())
    assert data.tokenizer.start == data.tokenizer.end == 2
    assert len(trained.tokenizer.encode(" and")) == 1


def test_prompts_are_messages_of_a_user():
    with open("asked.txt", "w") as file:
        file.write("hi\nwhy\n")
    data = open_data(write(*pairs(1)), stage="predict", predict_prompts="asked.txt")
    assert [each["prompt"] for batch in data.predict_dataloader() for each in batch] == [
        "User: hi\nAssistant: ",
        "User: why\nAssistant: ",
    ]
    assert next(iter(data.for_process(1, 3).predict_dataloader()))[0]["id"] == 1
    assert list(data.for_process(2, 3).predict_dataloader()) == [[]]


def test_an_empty_message_is_a_prompt_unless_nothing_is_left():
    with open("asked.jsonl", "w") as file:
        file.write('{"prompt": ""}\n')
    (found,) = open_data(write(*pairs(1)), stage="predict", predict_prompts="asked.jsonl").predict_dataloader()
    assert found[0]["prompt"] == "User: \nAssistant: "
    opened = open_data("chat.jsonl", template="plain", stage="predict", predict_prompts="asked.jsonl")
    assert opened.tokenizer.start == END and next(iter(opened.predict_dataloader()))[0]["prompt"] == ""
    with open("tokenizer.json", "w") as file:
        file.write(made_tokenizers.content("words").replace("<eos>", "a0").replace("<pad>", "a1"))
    bare = partial(TokenizerFile, "tokenizer.json", start="", end="", pad="")
    message = r"line 1 is empty, but a model without a start token continues at least one token; write a prompt there"
    with pytest.raises(ValueError, match=message):
        open_data("chat.jsonl", template="plain", tokenizer=bare, stage="predict", predict_prompts="asked.jsonl")
    assert open_data("chat.jsonl", tokenizer=bare, stage="predict", predict_prompts="asked.jsonl").stop


def test_records_of_alpaca_and_of_share_gpt():
    alpaca = [{"instruction": "Add.", "input": given, "output": "4"} for given in ("2+2", "")]
    fields = {"prompt": "instruction", "response": "output"}
    texts = [b"\xffUser: Add.\nAssistant: 4\xff", b"\xffUser: Add.\n\n2+2\nAssistant: 4\xff"]
    found = list_examples([next(iter(open_data(write(*alpaca), fields=fields).train_dataloader()))])
    assert sorted(bytes(ids) for ids, _ in found) == sorted(texts)
    # A field for two uses is read once.
    row = read_first(open_data(write({"input": "a", "output": "b"}), fields={"prompt": "input", "response": "output"}))
    assert bytes(row[0].tolist()).startswith(b"\xffUser: a\nAssistant: b\xff")
    with pytest.raises(
        ValueError, match=r"line 1: the field 'input' is a number, not a string; name another field wit"
    ):
        open_data(write({**alpaca[0], "input": 3}), fields=fields)
    shared = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    fields = {"messages": "conversations", "role": "from", "content": "value"}
    row = read_first(open_data(write(shared), fields=fields))
    assert bytes(row[0].tolist()).startswith(b"\xffUser: a\nAssistant: b\xff")


LONG = {"prompt": "p" * 40, "response": "r"}


def test_long_conversations_are_dropped_or_cut(caplog, monkeypatch):
    told = []
    monkeypatch.setattr("lightning_xt.data.chat.conversations.rank_zero_info", told.append)
    path = write(*pairs(1, 30), LONG)
    dropped = open_data(path, template="plain", seq_len=19)
    assert [bytes(ids) for ids, _ in list_examples([next(iter(dropped.train_dataloader()))])] == [b"\xff1+0=\xff"]
    found = open_data(path, template="plain", seq_len=19, too_long="truncate")
    batches = iter(found.train_dataloader())
    texts = [bytes(ids) for ids, _ in list_examples([next(batches), next(batches)])]
    assert texts == [b"\xff1+0=\xff", b"\xff30+0" + b"=" * 15]
    assert told == [
        "--data.path chat.jsonl: 2 of 3 train conversations have more than 20 tokens, with which a row of "
        f"--data.seq_len 19 is full; {rest}"
        for rest in ("2 dropped (--data.too_long drop)", "1 are cut and 1 dropped (--data.too_long truncate)")
    ]
    evaluated = open_data(write(*pairs(1), name="a.jsonl"), template="plain", seq_len=19, validation=path)
    # The bytes of the response that is left.
    tokens = 2 + 15
    assert evaluated.bytes_per_token("validation") == (1 + 30 * 15 // 31) / tokens
    assert told[-1].endswith("1 are cut and 1 dropped")


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (
            [*pairs(1), {"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}],
            {},
            "chat.jsonl, line 2: messages[1] has the role 'robot', which the template turns does not have: it has "
            "system, user, assistant; correct the role, or describe it in a file for --data.template",
        ),
        (
            ["{prompt: a}"],
            {},
            "chat.jsonl, line 1 is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 "
            "(char 1)), but every line must be an object; fix or remove the line",
        ),
        (["[1]"], {}, "chat.jsonl, line 1 is a list, but every line must be an object; fix or remove the line"),
        (
            [{"prompt": "a", "answer": "b"}],
            {},
            "chat.jsonl, line 1 has neither 'messages' nor both 'prompt' and 'response', but 'prompt', 'answer'; name "
            "other fields with --data.fields, such as --data.fields '{prompt: question, response: answer}'",
        ),
        (
            [{"prompt": 1, "response": "b"}],
            {},
            "chat.jsonl, line 1: the field 'prompt' is a number, not a string; name another field with --data.fields",
        ),
        (
            [{"prompt": "a", "response": ""}],
            {},
            "chat.jsonl, line 1: the field 'response' is empty; write the response there or remove the line",
        ),
        (
            [{"messages": [{"role": "assistant", "content": ""}]}],
            {},
            "chat.jsonl, line 1: messages[0] of the role assistant is empty; write the response there or remove the "
            "line",
        ),
        (
            [{"messages": [{"role": "user", "content": "a"}]}],
            {},
            "chat.jsonl, line 1 has no message of the role assistant, so there is nothing to learn; add one or remove "
            "the line",
        ),
        (
            [{"messages": "a"}],
            {},
            "chat.jsonl, line 1: the field 'messages' is a string, not a list of messages; write a list of objects "
            "there, or name another field with --data.fields",
        ),
        (
            [{"messages": ["a"]}],
            {},
            'chat.jsonl, line 1: messages[0] is a string, not an object; write {"role": "user", "content": "..."} '
            "there",
        ),
        (
            [{"messages": [{"role": "user"}]}],
            {},
            "chat.jsonl, line 1: messages[0] has no field 'content' but 'role'; give each message a text",
        ),
        (
            [{"messages": [{"content": "a"}]}],
            {},
            "chat.jsonl, line 1: messages[0] has no field 'role' but 'content'; give each message its role",
        ),
        (
            [{"prompt": "\ud800", "response": "b"}],
            {},
            "chat.jsonl, line 1: character 0 of the field 'prompt' is half a character (a lone surrogate); fix or "
            "remove the line",
        ),
        ([""], {}, "--data.path chat.jsonl: the file has no conversations; give some, one a line"),
        (
            pairs(30, 31),
            {"seq_len": 19},
            "--data.path chat.jsonl: all 2 train conversations have more than 20 tokens, with which a row of "
            "--data.seq_len 19 is full, so nothing is left; set a larger --data.seq_len or --data.too_long truncate",
        ),
        (
            [LONG],
            {"seq_len": 19, "too_long": "truncate"},
            "--data.path chat.jsonl: all 1 train conversations have more than 20 tokens, with which a row of "
            "--data.seq_len 19 is full, so nothing is left; set a larger --data.seq_len",
        ),
        (
            pairs(1, 2),
            {"validation": 0.5, "test": 0.5 - 2**-9},
            "--data.path chat.jsonl: of its 2 conversations validation takes 1 and test 1, which leaves none to train "
            "on; give more, or set --data.validation 0 or --data.test 0",
        ),
        (
            pairs(1),
            {"stage": "test"},
            "--data.path chat.jsonl has no test split; set --data.test, which is 0, to a fraction such as 0.05 or to a "
            "path",
        ),
        (
            pairs(1),
            {"fields": {"promt": "a"}},
            "--data.fields: unknown field 'promt'; did you mean prompt?",
        ),
        (
            pairs(1),
            {"template": "chatm"},
            "--data.template: unknown template 'chatm'; did you mean chatml?, or a .yaml or .json file",
        ),
        (pairs(1), {"batch_size": 0}, "Conversations has --data.batch_size 0, which must be at least 1"),
        (pairs(1), {"seq_len": 0}, "Conversations has --data.seq_len 0, which must be at least 1"),
        (pairs(1), {"eval_batch_size": 0}, "Conversations has --data.eval_batch_size 0, which must be at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(records, options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        open_data(write(*records), **options)
    assert str(error.value) == message


def test_a_prompt_needs_the_role_of_a_user():
    with open("mine.yaml", "w") as file:
        file.write("roles: {human: {}, assistant: {}}")
    message = (
        "line 1 has no messages, but the template mine.yaml has no role user for a prompt; describe it in the file"
    )
    with pytest.raises(ValueError, match=message):
        open_data(write(*pairs(1)), template="mine.yaml")
    asked = {"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert bytes(read_first(open_data(write(asked), template="mine.yaml"))[0][:4].tolist()) == b"\xffab\xff"
    with open("asked.txt", "w") as file:
        file.write("hi")
    with pytest.raises(ValueError, match="are messages of the role user, which the template"):
        open_data("chat.jsonl", template="mine.yaml", stage="predict", predict_prompts="asked.txt")


def test_files_that_are_not_json_lines_are_refused():
    write(*pairs(1), name="chat.txt")
    with pytest.raises(
        ValueError, match=r"^--data.path: chat\.txt is not a file of JSON lines by its name; name \.jsonl"
    ):
        open_data("chat.txt")
    message = (
        r"^--data.validation: chat\.txt is not .*, such as --data.validation 'chats/\*.jsonl', or a fraction of --data"
    )
    with pytest.raises(ValueError, match=message):
        open_data(write(*pairs(1)), validation="chat.txt").val_dataloader()
    with open("empty.jsonl", "w"), open("empty2.jsonl", "w"):
        pass
    with pytest.raises(ValueError, match="all 2 files have no conversations"):
        open_data("empty*")
    with pytest.raises(ValueError, match="path is required"):
        Conversations()
