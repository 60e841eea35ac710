"""Parts before and behind the stack: embeddings, head and objective, from the options of the wrappers."""

from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, make_class
from lightning_xt.commands.x_transformers.norm_parts import NORMALIZE_EPS, make_layer_norm
from lightning_xt.commands.x_transformers.position_parts import disables_absolute


def choose_embeddings(wrapper: Given, layers: Given) -> list[Any]:
    """Return the embeddings, in the order in which x-transformers applies them."""
    dim, length = layers.get("dim"), wrapper.get("max_seq_len")
    disabled = disables_absolute(layers)
    wanted, sinusoidal = wrapper.get("use_abs_pos_emb"), wrapper.get("scaled_sinu_pos_emb")
    absolute = length > 0 and wanted and not disabled
    found: list[Any] = []
    if wrapper.get("l2norm_embed"):
        if absolute:
            wrapper.differ("l2norm_embed", "the vectors of positions are not normed, as they are there", exact=True)
        unit = make_class("UnitNorm", scale=dim**-0.5, gain="fixed", eps=NORMALIZE_EPS)
        found.append(make_class("EmbeddingNorm", norm=unit))
    if absolute:
        found.append("SinusoidalPositions" if sinusoidal else make_class("LearnedPositions", max_length=length))
    types = wrapper.get_entries("embed_num_tokens", int)
    if types:
        (name, number), *others = types.items()
        found.append(make_class("TypeEmbedding", num_types=number))
        wrapper.differ("embed_num_tokens", f"{name} comes with the data: CustomData with inputs: [types]", exact=True)
        if others:
            wrapper.miss("embed_num_tokens", f"TypeEmbedding, which {name} has, adds one kind of ids")
    if wrapper.get("post_emb_norm"):
        found.append(make_class("EmbeddingNorm", norm=make_layer_norm()))
    if wrapper.has("emb_frac_gradient"):
        found.append(make_class("GradientFraction", fraction=float(wrapper.get("emb_frac_gradient"))))
    return found


def choose_embedding_dim(wrapper: Given, layers: Given, *, headed: bool) -> int | None:
    """Return the width of the token vectors; None if it is that of the stream."""
    width = wrapper.get("emb_dim")
    if width is None or width == layers.get("dim"):
        return None
    head = ", which the head reads its hidden states through" if headed else ""
    wrapper.differ("emb_dim", f"positions are as wide as the stream, and the map to it has no bias{head}")
    return int(width)


def choose_head(wrapper: Given) -> Any:
    """Return the head."""
    scale = wrapper.get("tie_embedding_scale")
    head: Any = "UntiedHead"
    if wrapper.get("tie_embedding"):
        head = "TiedHead" if scale == 1 else make_class("TiedHead", scale=None if scale is None else float(scale))
    if wrapper.get("sigsoftmax_logits"):
        head = make_class("SigSoftmax", head=head)
    if wrapper.get("mixture_of_softmax"):
        sizes = {"num_mixtures": wrapper.get("mixture_of_softmax_k")}
        head = wrapper.choose(
            "mixture_of_softmax", "MixtureOfSoftmaxes", "a tanh bounds the vectors", head=head, **sizes
        )
    if wrapper.get("logits_dim") == wrapper.get("num_tokens"):
        return head
    if wrapper.has("logits_dim"):
        wrapper.miss("logits_dim")
    return head


def choose_objective(wrapper: Given, training: Given | None) -> Any:
    """Return the objective of a language model; None for its default."""
    hidden = 0.0 if training is None else training.get("mask_prob")
    weight = 0.1 if training is None else training.get("next_embed_loss_weight")
    auxiliaries = []
    if wrapper.get("looped"):
        auxiliaries.append(wrapper.choose("looped", "ExitGate", ""))
    if wrapper.get("add_continuous_pred_head"):
        remark = "it predicts the vector of the token; with that of the position there"
        auxiliaries.append(wrapper.choose("add_continuous_pred_head", "NextEmbedding", remark, weight=float(weight)))
    if training is not None and wrapper.get("looped"):
        training.get("looped_exit_loss_weight")
    if training is not None and hidden:
        if auxiliaries:
            training.miss("mask_prob", "ForgetfulNextToken has no auxiliaries, which the model needs")
        else:
            remark = "in training only; each row draws its fraction, up to this one"
            return training.choose("mask_prob", "ForgetfulNextToken", remark, exact=True, max_fraction=float(hidden))
    return make_class("NextToken", auxiliaries=auxiliaries) if auxiliaries else None


def choose_passes(wrapper: Given) -> Any:
    """Return the passes of a forward through all layers; None for one."""
    loops, recycled = wrapper.get("max_looped_steps"), wrapper.get("train_max_recycle_steps")
    if wrapper.get("looped"):
        if wrapper.get("recycling"):
            wrapper.miss("recycling", "x-transformers refuses it next to looped; choose one")
        return make_class("ExitLoops", passes=loops)
    if wrapper.get("recycling"):
        return wrapper.choose("recycling", "Recycling", "", passes=recycled)
    return None


def choose_segments(wrapper: Given) -> Any:
    """Return the segments that a decoder remembers; None if it remembers none."""
    memory, length, shifted = wrapper.get("max_mem_len"), wrapper.get("max_seq_len"), wrapper.get("shift_mem_down")
    if not memory:
        return None
    if not length:
        wrapper.miss("max_mem_len", "a segment has a length, which max_seq_len is")
        return None
    wrapper.differ("max_mem_len", "rows longer than a segment are read in several; texts in order: --data.order lanes")
    sizes = {"length": length, "memory": memory}
    if not shifted:
        return make_class("SegmentRecurrence", **sizes)
    return wrapper.choose("shift_mem_down", "EnhancedRecurrence", "", **sizes)


def choose_dropout(wrapper: Given, attention: Given, feedforward: Given) -> float:
    """Return the dropout of embeddings and sublayers: the largest of the three that x-transformers has."""
    places = [(wrapper, "emb_dropout"), (attention, "sublayer_dropout"), (feedforward, "sublayer_dropout")]
    rates = [float(given.get(option)) for given, option in places]
    for (given, option), rate in zip(places, rates, strict=True):
        if rate and len(set(rates)) > 1:
            given.differ(option, f"dropout {max(rates):g} is for embeddings and all sublayers at once", exact=True)
    return max(rates)


def choose_zero_outputs(layers: Given, attention: Given, feedforward: Given) -> bool:
    """Return True if sublayers start at zero."""
    parts = [attention, feedforward]
    zero = [bool(each.get("zero_init_output")) for each in parts]
    if layers.get("zero_init_branch_output"):
        return True
    if any(zero) and not all(zero):
        parts[zero.index(True)].differ("zero_init_output", "zero_outputs is for all sublayers at once", exact=True)
    return any(zero)
