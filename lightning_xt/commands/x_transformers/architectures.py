"""Models as a config spells them, from the models of x-transformers."""

from typing import Any, NamedTuple

from lightning_xt.commands.x_transformers.expression import TRAINERS, Call
from lightning_xt.commands.x_transformers.given_options import Given, Remarks
from lightning_xt.commands.x_transformers.networks import NetworkBuilder
from lightning_xt.commands.x_transformers.option_names import WRAPPED, check_options
from lightning_xt.commands.x_transformers.wrapper_parts import choose_head, choose_objective
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.system.messages import UserError


class Architecture(NamedTuple):
    """Model as a config spells it.

    Args:
        kind: class of the model.
        options: its options.
        remarks: options without a counterpart, and differences.
        facts: options that the data decide on.
        stacks: options of its networks there, complete, by `decoder` and `encoder`.
        pad: the pad id of a pair; None for one sequence, which needs none.
    """

    kind: str
    options: dict[str, Any]
    remarks: Remarks
    facts: list[str]
    stacks: dict[str, StackOptions]
    pad: int | None = None


def translate(call: Call) -> Architecture:
    """Return the model of a call; UserError if the call itself makes no sense."""
    check_options(call)
    remarks, training = Remarks(), None
    while call.name in TRAINERS:
        options = {name: value for name, value in call.options.items() if name != "net"}
        if call.name == "XLAutoregressiveWrapper":
            _miss_recurrent(options, remarks)
        training = Given("AutoregressiveWrapper", options, remarks, places=call.places)
        call = _get_inner(call, "net", "TransformerWrapper(...)")
    return (_translate_pair if call.name == "XTransformer" else _translate_wrapper)(call, remarks, training)


def _translate_wrapper(call: Call, remarks: Remarks, training: Given | None) -> Architecture:
    options = {name: value for name, value in call.options.items() if name != "attn_layers"}
    wrapper = Given("TransformerWrapper", options, remarks, places=call.places)
    builder = NetworkBuilder(wrapper, _get_inner(call, "attn_layers", "Decoder(dim=512, depth=6)"), "", remarks)
    facts, network = _list_facts(wrapper), builder.build()
    wrapper.get("attn_z_loss_weight")
    if builder.causal:
        if training is not None and training.get("add_attn_z_loss"):
            training.differ(
                "add_attn_z_loss", "z_loss of attention, a mean over layers; a sum is squared there", exact=True
            )
            _set_z_loss(network["attention"])
        model: dict[str, Any] = {"decoder": network | {"head": choose_head(wrapper)}}
        objective = choose_objective(wrapper, training)
        model |= {"objective": objective} if objective else {}
    else:
        model = {"encoder": network, "head": choose_head(wrapper)}
        if training is not None:
            remarks.differ("AutoregressiveWrapper", "an encoder learns to predict hidden tokens, by MaskedTokens")
    wrapper.miss_unread()
    facts += _list_ids(training)
    kind = "LanguageModel" if builder.causal else "MaskedLanguageModel"
    return Architecture(kind, model, remarks, facts, {"decoder" if builder.causal else "encoder": builder.given})


def _translate_pair(call: Call, remarks: Remarks, training: Given | None) -> Architecture:
    shared = {name: value for name, value in call.options.items() if not name.startswith(tuple(WRAPPED))}
    pair = Given("XTransformer", shared, remarks, places=call.places)
    dim, dropped = pair.get("dim"), pair.get("cross_attn_tokens_dropout")
    model, facts, stacks = dict[str, Any](), list[str](), dict[str, StackOptions]()
    for side, prefix in (("encoder", "enc_"), ("decoder", "dec_")):
        own = {name.removeprefix(prefix): value for name, value in call.options.items() if name.startswith(prefix)}
        sizes = {name: own.pop(name) for name in WRAPPED[prefix] if name in own}
        wrapper = Given("TransformerWrapper", sizes, remarks, prefix, call.places)
        own |= {"dim": dim} | ({"cross_attend": True} if side == "decoder" else {})
        inner = Call(side.capitalize(), call.place, own, call.places)
        builder = NetworkBuilder(wrapper, inner, prefix, remarks)
        facts += _list_facts(wrapper)
        model[side], stacks[side] = builder.build(paired=side == "decoder"), builder.given
        dropped = max(dropped, builder.context_dropout)
        wrapper.miss_unread()
    model["decoder"]["head"] = "UntiedHead"
    model |= {"shared_embedding": pair.get("tie_token_emb"), "context_dropout": float(dropped)}
    facts += [*_list_ids(pair), *_list_ids(training)]
    return Architecture("Seq2Seq", model, remarks, facts, stacks, pair.get("pad_value"))


def _miss_recurrent(options: dict[str, Any], remarks: Remarks) -> None:
    """Remove the options of training by segments, with a remark about each."""
    for option in options.keys() - {"ignore_index", "pad_value"}:
        value = options.pop(option)
        if option == "tbptt_steps":
            text = "a row trains with gradients through all of its segments: data.seq_len counts them"
            remarks.differ(option, text, exact=True)
        else:
            remarks.miss(option, value, "out of scope: training at test time")


def _get_inner(call: Call, option: str, example: str) -> Call:
    inner = call.options.get(option)
    if not isinstance(inner, Call):
        raise UserError(f"from-xt: {call.place}: {call.name} has no {option}; give it, such as {option}={example}")
    return inner


def _list_facts(wrapper: Given) -> list[str]:
    """List what the data decide on here."""
    tokens, length = wrapper.get("num_tokens"), wrapper.get("max_seq_len")
    if length < 0:
        raise UserError(f"from-xt: {wrapper.type('max_seq_len')} is {length}, which must be at least 0")
    return [
        f"{wrapper.type('num_tokens')}={tokens}: the tokenizer of the data decides on the vocabulary",
        f"{wrapper.type('max_seq_len')}={length}: the data decide on a row's length; learned positions limit it",
    ]


def _list_ids(given: Given | None) -> list[str]:
    """List what the vocabulary decides on here, and remark what else is given."""
    if given is None:
        return []
    pad, ignored = given.get("pad_value"), given.get("ignore_index")
    if ignored not in (-100, pad):
        given.miss("ignore_index", "targets of -100 and of the pad id never count")
    own = given.has("pad_value")
    given.miss_unread()
    return [f"pad_value={pad}: the tokenizer of the data decides on the pad id, which is never scored"] if own else []


def _set_z_loss(attention: Any) -> None:
    """Set the z-loss of attention, or of each that alternates."""
    options = attention["init_args"]
    for each in options.get("recipes", [attention]):
        each["init_args"]["z_loss"] = 1e-4
