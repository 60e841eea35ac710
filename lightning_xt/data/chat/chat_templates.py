"""Chat templates: from the messages of a conversation to the text that a language model reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from lightning_xt.system.messages import explain_unknown

ASSISTANT = "assistant"
"""Role of the model."""
USER = "user"
"""Role of prompts."""
ALIASES = MappingProxyType({"developer": "system", "human": USER, "gpt": ASSISTANT})
"""Other names of roles: a newer one, and those of ShareGPT."""
LARGEST_FILE = 2**20


@dataclass(frozen=True)
class Affixes:
    """Texts before and after the content of a message."""

    prefix: str = ""
    suffix: str = ""


class Span(NamedTuple):
    """Part of a conversation's text, which is encoded by itself: the same ids in training and in serving.

    Args:
        text: the text.
        is_response: True for what the assistant writes.
    """

    text: str
    is_response: bool


@dataclass(frozen=True)
class ChatTemplate:
    """Text of a conversation: each message between the prefix and the suffix of its role, then that of the answer.

    Args:
        roles: texts around the messages of each role; `assistant` is the model's.
        start: text before the first message.
        stop: strings that end an answer.
    """

    roles: Mapping[str, Affixes] = field(
        default_factory=lambda: {
            "system": Affixes("", "\n\n"),
            "user": Affixes("User: ", "\n"),
            ASSISTANT: Affixes("Assistant: ", "\n"),
        }
    )
    start: str = ""
    stop: tuple[str, ...] = ("\nUser:",)

    def find_role(self, name: str) -> str | None:
        """Return the role of a name, which may be another one of it; None if the template has none."""
        role = name if name in self.roles else ALIASES.get(name, name)
        return role if role in self.roles else None

    def render(self, messages: Iterable[tuple[str, str]]) -> str:
        """Return the text of the spans that `split` finds."""
        return "".join(span.text for span in self.split(messages))

    def split(self, messages: Iterable[tuple[str, str]]) -> list[Span]:
        """Split the prompt of a conversation of (role, content) into spans; a last message of the assistant stays open.

        A response is the content, the suffix and, if the next prefix completes a stop string, the rest of that string:
        a model that is trained on responses learns to end them where generation stops.

        Raises:
            ValueError: the template has no such role.
        """
        named = [(self._require_role(number, role), content) for number, (role, content) in enumerate(messages)]
        spans: list[Span] = []
        # The text since the last response, and the part of the next prefix that belongs to it.
        text, taken = self.start, 0
        for number, (role, content) in enumerate(named):
            affixes = self.roles[role]
            text += affixes.prefix[taken:]
            if role != ASSISTANT:
                text, taken = text + content + affixes.suffix, 0
                continue
            if number == len(named) - 1:
                return [*spans, Span(text, False), Span(content, True)]
            after = affixes.suffix + self.roles[named[number + 1][0]].prefix
            end = max(len(affixes.suffix), self._measure_stop(after))
            spans += [Span(text, False), Span(content + after[:end], True)]
            text, taken = "", end - len(affixes.suffix)
        return [*spans, Span(text + self.roles[ASSISTANT].prefix[taken:], False)]

    def split_example(self, messages: Iterable[tuple[str, str]], has_end: bool) -> list[Span]:
        """Split a conversation that ends with a response, and complete the response by the text that ends it.

        The text is a stop string, or the suffix if it has one; with an end token, which follows, it may be empty.
        """
        *before, last = self.split(messages)
        suffix = self.roles[ASSISTANT].suffix
        if not any(stop in suffix for stop in self.stop):
            suffix = "" if has_end else next((stop for stop in self.stop if stop.startswith(suffix)), suffix)
        return [*before, Span(last.text + suffix, True)]

    def _require_role(self, number: int, name: str) -> str:
        role = self.find_role(name)
        if role is None:
            raise ValueError(f"messages[{number}]: {explain_unknown('role', name, self.roles)}")
        return role

    def _measure_stop(self, text: str) -> int:
        """Return the characters of a text up to the end of its first stop string; 0 if there is none."""
        ends = [text.index(stop) + len(stop) for stop in self.stop if stop in text]
        return min(ends, default=0)


TEMPLATES = MappingProxyType(
    {
        "turns": ChatTemplate(),
        "chatml": ChatTemplate(
            roles={role: Affixes(f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant")},
            stop=("<|im_end|>",),
        ),
        "alpaca": ChatTemplate(
            roles={
                "system": Affixes("", "\n\n"),
                "user": Affixes("### Instruction:\n", "\n\n"),
                "assistant": Affixes("### Response:\n", "\n\n"),
            },
            stop=("\n\n### ",),
        ),
        "plain": ChatTemplate(roles={role: Affixes() for role in ("system", "user", "assistant")}, stop=()),
    }
)
"""Built-in templates."""


def find_template(name: str, option: str = "--chat_template") -> ChatTemplate:
    """Return the built-in template, or that of a YAML or JSON file, that an option names; ValueError for neither."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{option}: {explain_unknown('template', name, TEMPLATES)}, or a .yaml or .json file")
    try:
        size = path.stat().st_size
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if size <= LARGEST_FILE else None
    except OSError as error:
        raise ValueError(f"{option} {name} cannot be read ({error.strerror}); name another file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{option} {name} is neither YAML nor JSON: {reason}") from error
    if size > LARGEST_FILE:
        raise ValueError(f"{option} {name} has more than {LARGEST_FILE} bytes; give a template")
    return parse_template(content, f"{option} {name}")


def parse_template(content: Any, where: str) -> ChatTemplate:
    """Build a template from plain values; ValueError if they are invalid."""
    form = "give roles: {user: {prefix: ..., suffix: ...}, assistant: {...}}, and if needed start and stop"
    if not isinstance(content, dict) or not isinstance(content.get("roles"), dict):
        raise ValueError(f"{where} has no roles; {form}")
    for name in content.keys() - {"roles", "start", "stop"}:
        raise ValueError(f"{where}: {explain_unknown('key', str(name), ['roles', 'start', 'stop'])}")
    roles = {}
    for role, affixes in content["roles"].items():
        if not isinstance(affixes, dict) or not all(isinstance(each, str) for each in affixes.values()):
            raise ValueError(f"{where}: role {role} needs texts; {form}")
        for name in affixes.keys() - {"prefix", "suffix"}:
            raise ValueError(f"{where}: role {role}: {explain_unknown('key', str(name), ['prefix', 'suffix'])}")
        roles[str(role)] = Affixes(**affixes)
    if "assistant" not in roles:
        raise ValueError(f"{where} has no role assistant, which is the model's; {form}")
    start, stop = content.get("start", ""), content.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(start, str) or not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"{where}: start is a text, and stop a list of texts that are not empty")
    return ChatTemplate(roles, start, tuple(stops))
