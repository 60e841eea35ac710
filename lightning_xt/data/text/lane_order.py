"""Conditions of the windows of a run in lanes."""

from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info

WAY_OUT = "or begin a run with its weights: --init_from RUN"


def read_order(state_dict: dict[str, Any]) -> str:
    """Return the order of the windows that a run has read, from the state of its data."""
    return "lanes" if "lanes" in state_dict else str(state_dict.get("order", "random"))


def report_order(state_dict: dict[str, Any], order: str) -> None:
    """Report that a run continues in another order of windows, not lanes, than that of the state of its data."""
    if (there := read_order(state_dict)) != order:
        rank_zero_info(f"the checkpoint's run has --data.order {there}; the run continues with --data.order {order}")


def describe_lanes(lanes: int, batch_size: int, world: int) -> str:
    """Describe a number of lanes by the options that give it."""
    return (
        f"--data.batch_size {batch_size} x {world} (processes) x {lanes // (batch_size * world)} "
        f"(--trainer.accumulate_grad_batches) give {lanes}"
    )


class LaneOrder(NamedTuple):
    """The values on which sample n of a run in lanes depends.

    Args:
        lanes: windows of an optimizer step of all processes.
        seq_len: tokens that a window predicts.
        seed: chooses the offset of each pass.
        hash: hash of the text.
    """

    lanes: int
    seq_len: int
    seed: int
    hash: str

    def check(self, state_dict: dict[str, Any], described: str) -> None:
        """Refuse to resume a run that read other lanes by a ValueError.

        Args:
            state_dict: the state of the data in the checkpoint.
            described: the number of lanes by the options that give it, for messages.
        """
        lanes = state_dict.get("lanes")
        if lanes is None:
            there = read_order(state_dict)
            change = "omit --data.order" if there == "random" else f"set --data.order {there}"
            raise ValueError(
                f"--data.order is lanes, but the checkpoint's run read {there} windows; {change}, {WAY_OUT}"
            )
        if lanes != self.lanes:
            raise ValueError(
                f"the checkpoint's run read its text in {lanes} lanes, but {described}; let their product be {lanes}, "
                f"{WAY_OUT}"
            )
        # Elsewhere in the text, memories would meet rows that do not continue theirs.
        for option, value in (("seq_len", self.seq_len), ("seed", self.seed)):
            if (there := state_dict.get(option, value)) != value:
                raise ValueError(
                    f"the checkpoint's run read its lanes with --data.{option} {there}, not {value}; set "
                    f"--data.{option} {there}, {WAY_OUT}"
                )
        if (text := state_dict.get("hash")) not in (None, self.hash):
            raise ValueError(
                f"the checkpoint's run read another text in lanes: its hash is {text[:16]}, not {self.hash[:16]}; "
                f"resume with that text, {WAY_OUT}"
            )
