"""Sentences about invalid fields of a request, from pydantic's errors."""

from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_VALUE = 60
"""Most characters of a value that a sentence quotes."""
NO_BODY = "the request has no body; send a JSON object with Content-Type: application/json"


def explain_fields(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Return one sentence about the first invalid field, and its name; None if no single field is at fault."""
    if not errors:
        return "the request is invalid", None
    # A misspelt field explains why another one is missing.
    error = next((each for each in errors if each["type"] == "unknown_field"), errors[0])
    kind, place, value = error["type"], list(error["loc"][1:]), error.get("input")
    if kind == "json_invalid":
        reason = (error.get("ctx") or {}).get("error", "")
        return f"the body is not valid JSON: {reason} (character {place[0] if place else 0})", None
    if kind == "unknown_field":
        return str(error["msg"]), join_place([*place, error["ctx"]["field"]])
    if not place and kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, "), None
    if not place:
        return (NO_BODY if kind == "missing" else "the body must be a JSON object"), None
    name = join_place(place)
    if kind == "missing":
        return f"{name} is required", name
    if place[-1] == "[key]":
        name = join_place(place[:-2])
        return f"{name} has the key {quote_value(place[-2])}, but its keys are ids", name
    message = str(error["msg"]).removeprefix("Value error, ").replace(" after validation", "")
    if message.startswith(("Input ", "it ")):
        rule = message.removeprefix("Input ").removeprefix("it ")
        return f"{name} is {quote_value(value)}, but it {rule}", name
    return f"{name}: {message[:1].lower()}{message[1:]}", name


def join_place(place: Sequence[int | str]) -> str:
    """Return a field's name with the fields and places that hold it, such as `messages[0].role`."""
    joined = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place)
    return joined.removeprefix(".")


def quote_value(value: object) -> str:
    """Return a short form of a value as JSON has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    # The digits of a long number are limited, and slow.
    text = "a very long number" if isinstance(value, int) and abs(value) >= 10**40 else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
