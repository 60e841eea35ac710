"""Parts behind the weighing of attention: gates of the gathered values, and how heads are joined."""

from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, make_class


def choose_output_mods(own: Given) -> list[Any]:
    """Return the output mods of attention, in the order in which x-transformers applies them."""
    found: list[Any] = []
    if own.get("head_scale"):
        found.append("HeadScale")
    if own.get("gate_value_heads"):
        found.append(make_class("HeadGate", bias_init=10.0))
    gate = _choose_gate(own)
    found += [] if gate is None else [gate]
    together, apart = own.get("orthog_projected_values"), own.get("orthog_projected_values_per_head")
    if (together or apart) and not own.crosses:
        first = "orthog_projected_values" if together else "orthog_projected_values_per_head"
        found.append(own.choose(first, "Orthogonal", ""))
        if together and apart:
            own.miss("orthog_projected_values_per_head", "gathered values are projected once, head by head")
    return found


def choose_output_projection(own: Given) -> Any:
    """Return the output projection; None for one linear map."""
    if not own.get("on_attn"):
        return None
    return own.choose("on_attn", "AttentionOnAttention", "", exact=True)


def _choose_gate(own: Given) -> Any:
    """Return the gate of gathered values; None if there is none."""
    by_token, by_output = own.get("gate_values"), own.get("output_gate")
    headwise, rank = own.get("gate_values_headwise"), own.get("gate_values_rank")
    output_rank, silu = own.get("output_gate_rank"), own.get("swiglu_values")
    if by_output:
        if own.get("output_gate_headwise"):
            own.miss("output_gate_headwise")
        if by_token:
            own.differ("gate_values", "it is a part of OutputGate")
        if silu:
            own.miss("swiglu_values", "OutputGate has a sigmoid")
        options = {} if output_rank is None else {"rank": output_rank}
        return own.choose("output_gate", "OutputGate", "a rank is that of each head; " + _OUTPUT_GATE, **options)
    if not by_token:
        return None
    if headwise:
        if silu:
            own.miss("swiglu_values", "HeadGate has a sigmoid")
        own.differ("gate_values_headwise", "HeadGate; its gate has a bias", exact=True)
        return make_class("HeadGate", bias_init=0.0)
    between = "" if rank is None or not own.get("low_rank_silu_gates") else ", and no SiLU between its two maps"
    own.differ("gate_values", f"ValueGate; its gate has a bias{between}", exact=not between)
    options = {"bias_init": 0.0} | ({} if rank is None else {"rank": rank})
    return make_class("ValueGate", **options, **({"activation": "SiLU"} if silu else {}))


_OUTPUT_GATE = "there is a gate from the token and one of each head by all heads too, as in the paper"
