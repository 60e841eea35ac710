"""Chat templates: the text of a conversation, and the spans in which it is encoded."""

import pytest

from lightning_xt.data.chat.chat_templates import TEMPLATES, find_template


@pytest.mark.parametrize(
    ("template", "messages", "prompt"),
    [
        ("chatml", [("user", "hi")], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        ("alpaca", [("user", "hi")], "### Instruction:\nhi\n\n### Response:\n"),
        ("turns", [("developer", "x"), ("user", "hi")], "x\n\nUser: hi\nAssistant: "),
        ("turns", [("human", "hi"), ("gpt", "x"), ("human", "a")], "User: hi\nAssistant: x\nUser: a\nAssistant: "),
        ("turns", [("user", "hi"), ("assistant", "Well")], "User: hi\nAssistant: Well"),
    ],
)
def test_built_in_templates(template: str, messages: list[tuple[str, str]], prompt: str) -> None:
    assert find_template(template).render(messages) == prompt


def test_a_template_is_read_from_a_file(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('start: "^"\nroles: {user: {prefix: "Q ", suffix: " "}, assistant: {prefix: "A "}}\nstop: "Q"\n')
    template = find_template(str(file))
    assert template.render([("user", "why")]) == "^Q why A " and template.stop == ("Q",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("roles: {user: {prefix: a}}", "has no role assistant"),
        ("role: {}", "has no roles; give roles: "),
        ("roles: {assistant: {prefx: a}}", "unknown key 'prefx'; did you mean prefix"),
        ("roles: {assistant: {prefix: 1}}", "role assistant needs texts"),
        ("roles: {assistant: {}}\nstp: a", "unknown key 'stp'; did you mean stop"),
        ("roles: {assistant: {}}\nstop: ['']", "stop a list of texts that are not empty"),
        ("a: [", "is neither YAML nor JSON"),
        ("[" * 3000, "is neither YAML nor JSON: maximum recursion depth"),
        ("start: 2020-13-45", "is neither YAML nor JSON: month must be in"),
    ],
)
def test_an_invalid_template_is_refused(content: str, message: str, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match="--chat_template") as error:
        find_template(str(file))
    assert message in str(error.value)


def test_an_unknown_template_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown template 'chatm'; did you mean chatml"):
        find_template("chatm")
    with pytest.raises(ValueError, match="cannot be read"):
        find_template(str(tmp_path / "none.yaml"))
    large = tmp_path / "large.yaml"
    large.write_text("#" * (2**20 + 1))
    with pytest.raises(ValueError, match="has more than 1048576 bytes"):
        find_template(str(large))


def list_spans(template: str, *messages: tuple[str, str], has_end: bool = True) -> list[tuple[str, bool]]:
    return [tuple(span) for span in find_template(template).split_example(messages, has_end)]


TALK = [("system", "Add."), ("user", "1+1"), ("assistant", "2"), ("user", "+1"), ("assistant", "3")]


@pytest.mark.parametrize(
    ("template", "spans"),
    [
        (
            "turns",
            [("Add.\n\nUser: 1+1\nAssistant: ", False), ("2\nUser:", True), (" +1\nAssistant: ", False), ("3", True)],
        ),
        (
            "alpaca",
            [
                ("Add.\n\n### Instruction:\n1+1\n\n### Response:\n", False),
                ("2\n\n### ", True),
                ("Instruction:\n+1\n\n### Response:\n", False),
                ("3", True),
            ],
        ),
        (
            "chatml",
            [
                (
                    "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n",
                    False,
                ),
                ("2<|im_end|>\n", True),
                ("<|im_start|>user\n+1<|im_end|>\n<|im_start|>assistant\n", False),
                ("3<|im_end|>\n", True),
            ],
        ),
        ("plain", [("Add.1+1", False), ("2", True), ("+1", False), ("3", True)]),
    ],
)
def test_a_response_reaches_to_the_text_that_ends_it(template, spans):
    assert list_spans(template, *TALK) == spans


@pytest.mark.parametrize(("template", "ending"), [("turns", "3\nUser:"), ("alpaca", "3\n\n### "), ("plain", "3")])
def test_without_an_end_token_the_last_response_ends_with_a_stop_string(template, ending):
    assert list_spans(template, *TALK, has_end=False)[-1] == (ending, True)
    assert list_spans("chatml", *TALK, has_end=False) == list_spans("chatml", *TALK)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_server_reads_the_spans_of_training(template):
    """Each response follows the spans that a server reads in its place, whatever comes later."""
    found, whole = find_template(template), list_spans(template, *TALK)
    for number in (2, 4):
        prompt = [tuple(span) for span in found.split(TALK[:number])]
        assert prompt == whole[: len(prompt)] and whole[len(prompt)][0].startswith(TALK[number][1])
    opened = found.split([*TALK[:4], ("assistant", "3 and")])
    assert opened[-1] == ("3 and", True) and opened[:-1] == found.split(TALK[:4])


def test_a_response_follows_a_response(tmp_path):
    spans = list_spans("turns", ("assistant", "a"), ("assistant", "b"))
    assert spans == [("Assistant: ", False), ("a\n", True), ("Assistant: ", False), ("b", True)]
    assert list_spans("turns", ("assistant", "a")) == [("Assistant: ", False), ("a", True)]
