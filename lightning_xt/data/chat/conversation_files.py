"""Readers of files of conversations: prompts with their responses, or messages."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_xt.data.chat.chat_templates import ASSISTANT, USER, ChatTemplate, Span
from lightning_xt.data.files.json_lines import describe_type, is_json_lines, list_fields, read_objects, require_string
from lightning_xt.data.files.reading import read_blocks
from lightning_xt.system.messages import explain_unknown


class FieldNames(NamedTuple):
    """Names of the fields of a file of conversations.

    Args:
        prompt: the prompt.
        input: the text to which a prompt applies, which follows it after an empty line; few records have one.
        response: its response.
        messages: the messages of a conversation, in place of both.
        role: the role of a message.
        content: the text of a message.
    """

    prompt: str = "prompt"
    input: str = "input"
    response: str = "response"
    messages: str = "messages"
    role: str = "role"
    content: str = "content"


def parse_field_names(names: Mapping[str, str] | None) -> FieldNames:
    """Return the names of the fields, by default their own; ValueError for an unknown field."""
    for name in (names or {}).keys() - set(FieldNames._fields):
        raise ValueError(f"--data.fields: {explain_unknown('field', name, FieldNames._fields)}")
    return FieldNames(**names or {})


class ConversationReader:
    """Reader of conversations as spans of text.

    Args:
        template: the text around messages.
        name: its name in messages.
        fields: names of the fields.
        has_end: True if an end token follows each conversation.
    """

    def __init__(self, template: ChatTemplate, name: str, fields: FieldNames, has_end: bool) -> None:
        self.template, self.name, self.fields, self.has_end = template, name, fields, has_end

    def read(self, files: Sequence[Path], option: str) -> list[list[Span]]:
        """Read the conversations of files of JSON lines, plain or `.gz`, that an option names.

        Raises:
            ValueError: a file cannot be read, a line is not a conversation, or a role is not one of the template's.
        """
        return [
            self.template.split_example(self.read_messages(record, place), self.has_end)
            for file in files
            for place, record in _read_file(file, option)
        ]

    def read_messages(self, record: dict[str, Any], place: str) -> list[tuple[str, str]]:
        """Return the roles and contents of a conversation's messages, up to the last response."""
        names = self.fields
        if names.messages not in record:
            return self._read_pair(record, place)
        given = record[names.messages]
        if not isinstance(given, list):
            raise ValueError(
                f"{place}: the field {names.messages!r} is {describe_type(given)}, not a list of messages; write a "
                "list of objects there, or name another field with --data.fields"
            )
        found = [self._read_message(each, f"{place}: messages[{number}]") for number, each in enumerate(given)]
        while found and found[-1][0] != ASSISTANT:
            found.pop()
        if not found:
            raise ValueError(
                f"{place} has no message of the role {ASSISTANT}, so there is nothing to learn; add one or remove the "
                "line"
            )
        return found

    def _read_pair(self, record: dict[str, Any], place: str) -> list[tuple[str, str]]:
        if USER not in self.template.roles:
            raise ValueError(
                f"{place} has no messages, but the template {self.name} has no role {USER} for a prompt; describe it "
                "in the file of --data.template, or give messages"
            )
        return [
            (USER, self._read_prompt(record, place)),
            (ASSISTANT, self._read_response(record, place)),
        ]

    def _read_message(self, message: Any, place: str) -> tuple[str, str]:
        names = self.fields
        if not isinstance(message, dict):
            raise ValueError(
                f'{place} is {describe_type(message)}, not an object; write {{"{names.role}": "user", '
                f'"{names.content}": "..."}} there'
            )
        given = require_string(message, names.role, place, "give each message its role")
        role = self.template.find_role(given)
        if role is None:
            raise ValueError(
                f"{place} has the role {given[:40]!r}, which the template {self.name} does not have: it has "
                f"{', '.join(self.template.roles)}; correct the role, or describe it in a file for --data.template"
            )
        content = require_string(message, names.content, place, "give each message a text")
        if role == ASSISTANT and not content:
            raise ValueError(f"{place} of the role {ASSISTANT} is empty; write the response there or remove the line")
        return role, content

    def _read_prompt(self, record: dict[str, Any], place: str) -> str:
        names = self.fields
        prompt = self._require(record, names.prompt, place)
        if names.input not in record or names.input in (names.prompt, names.response):
            return prompt
        given = require_string(record, names.input, place, "name another field with --data.fields")
        return f"{prompt}\n\n{given}" if given else prompt

    def _read_response(self, record: dict[str, Any], place: str) -> str:
        response = self._require(record, self.fields.response, place)
        if not response:
            raise ValueError(
                f"{place}: the field {self.fields.response!r} is empty; write the response there or remove the line"
            )
        return response

    def _require(self, record: dict[str, Any], field: str, place: str) -> str:
        names = self.fields
        if field not in record:
            raise ValueError(
                f"{place} has neither {names.messages!r} nor both {names.prompt!r} and {names.response!r}, but "
                f"{list_fields(record)}; name other fields with --data.fields, such as --data.fields "
                "'{prompt: question, response: answer}'"
            )
        return require_string(record, field, place, "name another field with --data.fields")


def _read_file(file: Path, option: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not is_json_lines(file.name):
        fraction = "" if option == "--data.path" else ", or a fraction of --data.path, such as 0.05"
        raise ValueError(
            f"{option}: {file} is not a file of JSON lines by its name; name .jsonl or .ndjson files, plain or .gz, "
            f"such as {option} 'chats/*.jsonl'{fraction}"
        )
    return read_objects(read_blocks(file), str(file))
