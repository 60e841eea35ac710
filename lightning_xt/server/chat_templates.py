"""Templates of dialogues: the text of a language model that was trained on dialogues."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lightning_xt.system.messages import explain_unknown

ALIASES = MappingProxyType({"developer": "system"})
"""Newer names of roles."""
LARGEST_FILE = 2**20


@dataclass(frozen=True)
class Affixes:
    """Texts before and after the content of a message."""

    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class ChatTemplate:
    """Text of a dialogue: each message between the prefix and the suffix of its role, then the prefix of the answer.

    Args:
        roles: texts around the messages of each role; `assistant` is the model's.
        start: text before the first message.
        stop: strings that end an answer.
    """

    roles: Mapping[str, Affixes] = field(
        default_factory=lambda: {
            "system": Affixes("", "\n\n"),
            "user": Affixes("User: ", "\n"),
            "assistant": Affixes("Assistant: ", "\n"),
        }
    )
    start: str = ""
    stop: tuple[str, ...] = ("\nUser:",)

    def render(self, messages: Iterable[tuple[str, str]]) -> str:
        """Return the prompt of a dialogue of (role, content); a last message of the assistant is left open.

        Raises:
            ValueError: the template has no such role.
        """
        text, role = [self.start], ""
        for number, (given, content) in enumerate(messages):
            role = given if given in self.roles else ALIASES.get(given, given)
            if role not in self.roles:
                raise ValueError(f"messages[{number}]: {explain_unknown('role', given, self.roles)}")
            text += [self.roles[role].prefix, content, self.roles[role].suffix]
        if role == "assistant":
            return "".join(text[:-1])
        return "".join(text) + self.roles["assistant"].prefix


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
    }
)
"""Built-in templates."""


def find_template(name: str) -> ChatTemplate:
    """Return a built-in template, or that of a YAML or JSON file; ValueError if it is neither."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"--chat_template: {explain_unknown('template', name, TEMPLATES)}, or a .yaml or .json file")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"--chat_template {name} has more than {LARGEST_FILE} bytes; give a template")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--chat_template {name} cannot be read ({error.strerror}); name another file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"--chat_template {name} is neither YAML nor JSON: {reason}") from error
    return parse_template(content, f"--chat_template {name}")


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
