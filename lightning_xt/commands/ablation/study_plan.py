"""Plan of an ablation: what is trained, in which order, fixed before the first run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_xt.commands.ablation.budget import Budget
from lightning_xt.system.messages import UserError

BASE = "base"
"""Name of the row of the base."""
TUNING_SEED = 1000
"""Seed of the runs that choose a learning rate; repeats have the seeds 0, 1, ..."""
HALF = 2
"""The base is also trained for this fraction of its steps, to see how fast its loss falls."""
SHOWN = 5
"""Names that a message lists at most."""


class ConfigText(NamedTuple):
    """Config file as it was when the study began.

    Args:
        path: where it lies.
        text: its contents.
    """

    path: str
    text: str

    @property
    def name(self) -> str:
        """Name of the file without its ending."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Variant:
    """Change of the base.

    Args:
        name: of its row.
        text: the overlay. Empty = the base as it is.
        parts: names of the variants that it combines; none if it is a single one.
        error: why it cannot be trained. None = it can.
    """

    name: str
    text: str
    parts: tuple[str, ...] = ()
    error: str | None = None

    @property
    def summary(self) -> str:
        """First line of the overlay's comment."""
        first = self.text.partition("\n")[0]
        return first.removeprefix("#").strip() if first.startswith("#") else ""


@dataclass(frozen=True)
class Run:
    """Run of an ablation.

    Args:
        variant: name of what is trained.
        seed: of the weights and of the order of the data.
        purpose: repeat, half, tuning or probe.
        rate: the learning rate that is tried. None = that of the variant.
        probe: name of the probe on which it is trained. None = the base's data.
    """

    variant: str
    seed: int
    purpose: str = "repeat"
    rate: float | None = None
    probe: str | None = None

    @property
    def key(self) -> str:
        """Name of the file of its result."""
        last = self.seed if self.rate is None else f"{self.rate:g}"
        folder = self.purpose if self.probe is None else f"{self.purpose}-{self.probe}"
        return f"{folder}/{self.variant}-{last}"


@dataclass(frozen=True)
class StudyPlan:
    """Plan of an ablation.

    Args:
        base: configs of the base, in their order.
        options: options of `fit` after them.
        variants: the variants, in their order.
        budget: of each run.
        seeds: repeats of each variant.
        floor: repeats of the base.
        rates: learning rates to choose from. Empty = each has its own.
        threads: threads of each run.
        versions: versions of the programs that train.
        code: hash of the sources that train, which may change without the versions.
        probes: configs of small tasks, on which the base's and the overlays' models are compared too.
        probe_metric: metric of the probes.
    """

    base: tuple[ConfigText, ...]
    options: tuple[str, ...]
    variants: tuple[Variant, ...]
    budget: Budget
    seeds: int
    floor: int
    rates: tuple[float, ...]
    threads: int
    versions: Mapping[str, str]
    code: str = ""
    probes: tuple[ConfigText, ...] = ()
    probe_metric: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return the plan as plain values, the order of its runs included."""
        return {
            "versions": dict(self.versions),
            "code": self.code,
            "base": [list(each) for each in self.base],
            "options": list(self.options),
            "budget": self.budget.text,
            "seeds": self.seeds,
            "floor": self.floor,
            "rates": list(self.rates),
            "threads": self.threads,
            "variants": {each.name: {"parts": list(each.parts), "text": each.text} for each in self.variants},
            "probes": {each.name: each.text for each in self.probes},
            "probe_metric": self.probe_metric,
            "order": [run.key for run in (*self.list_tuning(), *self.list_repeats(), *self.list_probes())],
        }

    def list_tuning(self) -> Iterator[Run]:
        """Yield the runs that choose learning rates: each rate in turn, of all."""
        for rate in self.rates:
            yield from (Run(name, TUNING_SEED, "tuning", rate) for name in (BASE, *self._names))

    def list_repeats(self) -> Iterator[Run]:
        """Yield the other runs: each seed in turn, of the base and of all variants."""
        for seed in range(self.most_repeats):
            yield Run(BASE, seed)
            if seed < self.seeds:
                yield Run(BASE, seed, "half")
                yield from (Run(name, seed) for name in self._names)

    def list_probes(self) -> Iterator[Run]:
        """Yield the runs on probes: each seed in turn, of each probe, of the base and of all variants."""
        for seed in range(self.seeds):
            for probe in self.probes:
                yield from (Run(name, seed, "probe", probe=probe.name) for name in (BASE, *self._names))

    @property
    def most_repeats(self) -> int:
        """Repeats of the base, which has the most."""
        return max(self.floor, self.seeds)

    @property
    def _names(self) -> list[str]:
        return [each.name for each in self.variants if each.error is None]


def check_resumable(plan: StudyPlan, earlier: Mapping[str, Any], place: str, has_probed: bool) -> None:
    """Raise a UserError unless the study of an earlier plan can continue by this one, which may have more of it.

    Args:
        plan: the plan, perhaps with more variants, probes and seeds.
        earlier: an earlier one as plain values.
        place: the option that names the folder of both, in messages.
        has_probed: whether probes have results.
    """
    now = plan.to_plain()
    if lost := [name for name in now if name not in earlier]:
        raise UserError(
            f"{place} holds a plan.json without {_list(lost)}: it is of another version, or not a study; give another "
            "--out"
        )
    for name, what in (("versions", "the versions"), ("options", "the options"), ("budget", "--budget")):
        _require_equal(place, what, earlier[name], now[name])
    if [text for _, text in earlier["base"]] != [text for _, text in now["base"]]:
        raise UserError(
            f"{place} holds a study of another base: {_name_base(earlier)} was another one then than "
            f"{_name_base(now)} now; give another --out"
        )
    for name in ("seeds", "floor"):
        # Seeds are numbered, so that the runs of fewer are among those of more.
        if now[name] < earlier[name]:
            raise UserError(
                f"{place} holds a study with --{name} {earlier[name]}, now {now[name]}; give as many or more, or "
                "another --out"
            )
    _require_equal(place, "--tune", _spell_rates(earlier["rates"]), _spell_rates(now["rates"]))
    _require_equal(place, "--threads", earlier["threads"], now["threads"])
    if earlier["probes"] and has_probed:
        _require_equal(place, "--probe_metric", earlier["probe_metric"], now["probe_metric"])
    for kind, what in (("variants", "overlay"), *([("probes", "probe")] if has_probed else [])):
        before, after = earlier[kind], now[kind]
        if missing := [name for name in before if name not in after]:
            raise UserError(
                f"{place} holds a study with {_list(missing)} too; give all of its {kind}, or another --out"
            )
        if changed := [name for name in before if before[name] != after[name]]:
            raise UserError(
                f"{place} holds a study in which the {what} {_list(changed)} had other contents; restore them, or give "
                "another --out"
            )


def _require_equal(place: str, what: str, before: Any, now: Any) -> None:
    if before != now:
        raise UserError(
            f"{place} holds a study with {what} {_show(before)}, now {_show(now)}; use those again, or give another "
            "--out"
        )


def _spell_rates(rates: Sequence[float]) -> str:
    return f"lr={','.join(f'{rate:g}' for rate in rates)}" if rates else "none"


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return (
        " ".join(map(str, value)) or "none"
        if isinstance(value, Sequence) and not isinstance(value, str)
        else f"{value}"
    )


def _name_base(plan: Mapping[str, Any]) -> str:
    return " and ".join(path for path, _ in plan["base"])


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
