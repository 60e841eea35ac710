"""Options of one constructor of x-transformers, as they are given, and remarks about what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_xt.commands.x_transformers.expression import Call
from lightning_xt.commands.x_transformers.reference_options import (
    REQUIRED,
    explain_option,
    read_defaults,
    read_kinds,
)
from lightning_xt.system.docstrings import find_counterparts
from lightning_xt.system.messages import UserError
from lightning_xt.system.public_names import find_public

LIMITS = {"dim": 1_000_000, "depth": 10_000, "heads": 100_000, "dim_head": 1_000_000, "num_tokens": 2**31}
"""Largest sizes; the smallest is 1."""
NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    tuple: "a tuple",
    dict: "a dict",
    str: "a text",
}
KINDS = {kind.__name__: kind for kind in NAMES}
BY_LAYER = ("shift_tokens", "layer_dropout")
"""Options of a stack that may have one value for each sublayer, as a tuple."""
LONGEST_VALUE = 60


@dataclass
class Remarks:
    """Remarks about options, each once and in order.

    Args:
        missing: options without a counterpart, with the reason.
        differing: options whose counterpart differs, with the difference: True if a forward with imported weights gives
            the same numbers nevertheless.
    """

    missing: dict[str, None] = field(default_factory=dict)
    differing: dict[str, bool] = field(default_factory=dict)

    def miss(self, option: str, value: Any, reason: str) -> None:
        """Remark that an option has no counterpart."""
        self.missing[f"{option}={format_value(value)}: {' '.join(reason.split())}"] = None

    def differ(self, option: str, text: str, *, exact: bool = False) -> None:
        """Remark how the counterpart of an option differs; `exact` says that imported weights give the same numbers."""
        self.differing[f"{option}: {' '.join(text.split())}"] = exact


class Given:
    """Options of one constructor, read one by one; those that nothing reads have no counterpart.

    Args:
        owner: the constructor.
        values: values of the options that are given.
        remarks: where remarks are added.
        prefix: prefix of the options, as typed.
        places: where the text gives each option, as typed.
        inherited: values of options of another constructor, which reads them too.
    """

    def __init__(
        self,
        owner: str,
        values: Mapping[str, Any],
        remarks: Remarks,
        prefix: str = "",
        places: Mapping[str, str] | None = None,
        inherited: Mapping[str, Any] | None = None,
    ) -> None:
        self.owner, self.prefix, self.remarks = owner, prefix, remarks
        self._own, self._places = dict(values), places or {}
        self._values = {**(inherited or {}), **values}
        self._defaults = read_defaults()[owner]
        self._unread = dict.fromkeys(values)

    def get(self, option: str) -> Any:
        """Return the value of an option, by default its default there; UserError for one of another type."""
        self._unread.pop(option, None)
        if option not in self._values:
            if self._defaults[option] == REQUIRED:
                raise UserError(
                    f"from-xt: {self.owner} has no {self.type(option)}; give it, such as {self.type(option)}="
                    f"{ {'dim': 512, 'num_tokens': 256, 'max_seq_len': 1024}.get(option, '...') }"
                )
            return self._defaults[option]
        return self._check(option, self._values[option])

    def get_entries(self, option: str, kind: type, *names: str) -> dict[str, Any]:
        """Return the entries of a dict of these names, or all of them; UserError for one of another type."""
        found = {name: value for name, value in self.get(option).items() if name in names or not names}
        for name, value in found.items():
            if not _fits(value, kind, optional=False):
                raise UserError(
                    f"from-xt: {self.type(option)} has {name} {format_value(value)}, which must be {NAMES[kind]}"
                )
        return found

    def has(self, option: str) -> bool:
        """Return True if an option is given and is not the default there."""
        return self.get(option) != self._defaults[option]

    @property
    def crosses(self) -> bool:
        """True for the options of cross-attention."""
        return self.prefix.endswith("cross_attn_")

    def complete(self) -> dict[str, Any]:
        """Return the values of all options, at their defaults there where they are not given."""
        return {**self._defaults, **self._values}

    def is_own(self, option: str) -> bool:
        """Return True if an option is given to this constructor itself."""
        return option in self._own

    def type(self, option: str) -> str:
        """Return an option as a user types it."""
        inherited = option in self._values and option not in self._own
        return (self.prefix.replace("cross_", "") if inherited else self.prefix) + option

    def choose(self, option: str, name: str, remark: str | None = None, *, exact: bool = False, **options: Any) -> Any:
        """Return a class with its options, for an option that is given.

        Args:
            option: the option.
            name: the class.
            remark: how it differs; "" for what its docstring says. None = not at all.
            exact: True if imported weights give the same numbers nevertheless.
            options: its options.
        """
        if remark is not None:
            self.differ(option, remark or find_counterparts(find_public(name))[1] or "", name, exact=exact)
        return make_class(name, **options)

    def differ(self, option: str, text: str, name: str = "", *, exact: bool = False) -> None:
        """Remark how the counterpart of an option differs; see `Remarks.differ`."""
        self.remarks.differ(self.type(option), f"{name}; {text}" if name else text, exact=exact)

    def miss(self, option: str, reason: str | None = None) -> None:
        """Remark that an option has no counterpart. No reason = that of the table of all options."""
        self._unread.pop(option, None)
        self.remarks.miss(self.type(option), self._values.get(option), reason or explain_option(self.owner, option))

    def miss_unread(self) -> None:
        """Remark all options that nothing has read, unless they are at their defaults."""
        for option in list(self._unread):
            if self.has(option):
                self.miss(option)

    def _check(self, option: str, value: Any) -> Any:
        default, typed = self._defaults[option], self.type(option)
        kind = read_kinds().get(option, "any" if default in (None, REQUIRED) else type(default).__name__)
        wanted = KINDS.get(kind)
        place = f"{self._places[typed]}: " if typed in self._places else ""
        listed = option in BY_LAYER and isinstance(value, tuple)
        if wanted is not None and not all(
            _fits(each, wanted, optional=default is None) for each in (value if listed else (value,))
        ):
            raise UserError(f"from-xt: {place}{typed} is {format_value(value)}, which must be {NAMES[wanted]}")
        most = LIMITS.get(option)
        if most is not None and value is not None and not 1 <= value <= most:
            raise UserError(f"from-xt: {place}{typed} is {value}, which must be from 1 to {most}")
        return value


def _fits(value: Any, wanted: type, *, optional: bool) -> bool:
    """Return True if a value is of a type; `optional` is True if None is too."""
    if value is None:
        return optional
    if wanted in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if wanted is float else wanted)


def make_class(name: str, **options: Any) -> Any:
    """Return a class with its options as a config spells it."""
    return {"class_path": name, "init_args": options} if options else name


def format_value(value: Any) -> str:
    """Return a value as it is typed, shortened."""
    text = f"{value.name}()" if isinstance(value, Call) else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
