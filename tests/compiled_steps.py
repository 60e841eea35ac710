"""Decoding with compiled steps, in a process without run-time checks of shapes; prints how many variants agree.

python tests/compiled_steps.py eager|inductor [NAME ...]
"""

import sys
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

COMPILE = torch.compile


def check_graphs(builds: dict[str, Any]) -> None:
    """Check that nothing makes inductor skip CUDA graphs: no writes into inputs that may move, no tensors on the CPU.

    The steps are traced on the meta device, where a tensor that a step makes on the CPU shows.
    """
    from catalogue import crop, example, randomise

    from lightning_xt.generation.models.compiled import Compiled

    checked: list[int] = []

    def check(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        metadata = torch._guards.TracingContext.get().fw_metadata
        written = {index for index, info in enumerate(metadata.input_info) if info.mutates_data}
        assert written and written <= {*metadata.static_input_indices}, (written, metadata.static_input_indices)
        values = [node.meta["val"] for node in graph.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
        assert {value.device.type for value in values} == {"meta"}
        checked.append(len(written))
        return make_boxed_func(graph.forward)

    def compile(step: Any, options: dict[str, Any], **_: Any) -> Any:
        # CUDA graphs are requested on CUDA only.
        guards = {"guard_filter_fn": options["guard_filter_fn"]}
        return COMPILE(step, fullgraph=True, backend=aot_autograd(fw_compiler=check), options=guards)

    for name, build in builds.items():
        checked.clear()
        model = randomise(build, torch.float32).to("meta")
        with patch("torch.compile", compile):
            compiled = Compiled(model)
        inputs = crop(example(2, 5, torch.float32)[1], slice(0, 5)) if name == "context" else None
        inputs = inputs and replace(inputs, **{k: v.to("meta") for k, v in vars(inputs).items() if v is not None})
        cache = compiled.new_cache(2, 300)
        assert cache.capacity == 512 + 32
        for n in (5, 1, 1):
            tokens = torch.zeros(2, n, dtype=torch.long, device="meta")
            compiled(tokens, inputs=inputs if n > 1 else None, cache=cache)
        assert len(cache.extent.slots) == 32 and checked, name
    print(f"{len(builds)} graphs", flush=True)


def check_formats(build: Any) -> None:
    """Compare compiled steps of each format of weights with eager steps: one program of one row, one or two of more."""
    from catalogue import VOCAB, randomise

    from lightning_xt.generation.models.compiled import Compiled
    from lightning_xt.generation.models.quantized_weights import convert_weights

    for weights, group_size in (("float32", None), ("bfloat16", None), ("int8", None), ("int4", None), ("int4", 5)):
        plain = convert_weights(randomise(build, torch.float32), weights, group_size)
        compiled = Compiled(plain)
        for rows, first in ((1, True), (3, True), (17, "int" in weights), (2, False), (1, False)):
            caches = [model.new_cache(rows, 9) for model in (compiled, plain)]
            for n in (4, 1, 1):
                tokens = torch.randint(0, VOCAB, (rows, n))
                with torch._dynamo.config.patch(error_on_recompile=not first):
                    ours, theirs = (
                        model(tokens, cache=each) for model, each in zip((compiled, plain), caches, strict=True)
                    )
                error = (ours - theirs).float().norm() / theirs.float().norm()
                assert error < (1e-5 if weights == "float32" else 0.03), (weights, rows, n, error)
        print(f"{weights} stays close", flush=True)


def check_lookup(model: Any, compiled: Any, inputs: Any) -> None:
    """Compare the tokens of prompt lookup, whose drafts of all lengths one program of one row verifies."""
    from catalogue import VOCAB

    from lightning_xt.generation.engine import generate
    from lightning_xt.generation.methods.prompt_lookup import PromptLookup

    for rows, first in ((1, True), (3, True), (2, False), (1, False)):
        prompt = torch.randint(0, VOCAB, (rows, 5)).repeat(1, 4)
        given = None if inputs is None else replace(inputs, context=inputs.context[:rows])
        lookup = PromptLookup()
        with torch._dynamo.config.patch(error_on_recompile=not first):
            ours = generate(compiled, prompt, 90, temperature=0, method=lookup, inputs=given)
        assert torch.equal(ours, generate(model, prompt, 90, temperature=0, inputs=given))
        assert lookup.accepted > 20, (lookup.accepted, lookup.proposed)


def main() -> None:
    """Compare the tokens, and allow compilation only in the first call with one row and the first with several."""
    if "inductor" not in sys.argv:
        torch.compile = lambda step, fullgraph, options: COMPILE(
            step, fullgraph=fullgraph, backend="eager", options={"guard_filter_fn": options["guard_filter_fn"]}
        )
    from catalogue import CONTEXT, VOCAB, attention, context_decoder, context_options, decoder, delta_net, randomise

    from lightning_xt.core.inputs import Inputs
    from lightning_xt.generation.engine import generate
    from lightning_xt.generation.models.compiled import Compiled
    from lightning_xt.generation.models.quantized_weights import convert_weights
    from lightning_xt.nn.attention.cycle import Cycle
    from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
    from lightning_xt.nn.mixers.hybrid import Hybrid
    from lightning_xt.nn.mixers.mamba2 import Mamba2
    from lightning_xt.nn.positions.alibi import ALiBi
    from lightning_xt.nn.positions.forgetting import Forgetting
    from lightning_xt.nn.projections.latent import Latent
    from lightning_xt.nn.score_mods.soft_cap import SoftCap
    from lightning_xt.nn.shifts.token_shift import TokenShift

    torch.set_grad_enabled(False)
    builds = {
        "rotary": decoder,
        "window": partial(decoder, attention=attention(window=3, position=ALiBi)),
        "latent": partial(decoder, attention=attention(projection=Latent, kv_heads=None)),
        "forgetting-token_shift": partial(decoder, attention=attention(position=Forgetting), shift=TokenShift),
        "kv_heads": partial(decoder, attention=attention(kv_heads=2)),
        "learned_positions": partial(
            decoder, attention=attention(position=None), embeddings=[partial(LearnedPositions, max_length=400)]
        ),
        "context": partial(context_decoder, position=None),
        "recurrences": partial(
            decoder,
            attention=partial(
                Cycle,
                recipes=[
                    partial(Mamba2, heads=4, dim_head=6, state_dim=3),
                    partial(Hybrid, recipes=[attention(), delta_net()]),
                ],
            ),
        ),
    }
    if "inductor" not in sys.argv:
        context = partial(decoder, **context_options(position=None), depth=1)
        forgetting = partial(builds["forgetting-token_shift"], depth=1)
        check_graphs({"context": context, "forgetting": forgetting, "recurrences": builds["recurrences"]})
    builds = {name: builds[name] for name in sys.argv[2:] or builds}
    for name, build in builds.items():
        torch.manual_seed(1)
        model = randomise(build)
        if name == "learned_positions":
            # A random model repeats itself little if its logits depend much on the position.
            model.get_parameter("embeddings.0.table.weight").mul_(0.2)
        compiled, seen = Compiled(convert_weights(model, "float32")), set[int]()
        # Only the first call of one row, and the first of several, may compile.
        for rows, n, new, first, options in (
            (1, 5, 9, True, {"temperature": 0}),
            (1, 3, 150, False, {"temperature": 0}),
            (1, 140, 13, False, {"temperature": 1.3}),
            (3, 5, 9, True, {"temperature": 0}),
            (5, 4, 140, False, {"temperature": 1.3, "lengths": torch.tensor([4, 1, 3, 2, 4]), "end": 4}),
            (2, 130, 7, False, {"temperature": 0}),
        ):
            prompt = torch.randint(0, VOCAB, (rows, n))
            inputs = Inputs(context=torch.randn(rows, 3, CONTEXT).double()) if name == "context" else None
            with torch._dynamo.config.patch(error_on_recompile=not first):
                ours = generate(compiled, prompt, new, inputs=inputs, **options)
            theirs = generate(model, prompt, new, inputs=inputs, **options)
            assert torch.equal(ours, theirs), (name, rows, n, new)
            seen.update(theirs.flatten().tolist())
        assert len(seen) > 4, (name, seen)
        if not model.recurrences:
            check_lookup(
                model, compiled, Inputs(context=torch.randn(3, 3, CONTEXT).double()) if name == "context" else None
            )
        print(f"{name} agrees", flush=True)
    check_formats(partial(decoder, dim=32, attention=attention(dim_head=8, kv_heads=2)))
    # The same shapes need another program.
    for cap in (50.0, 0.5):
        soft = randomise(partial(decoder, attention=attention(score_mods=[partial(SoftCap, cap=cap)])))
        prompt = torch.randint(0, VOCAB, (1, 5))
        assert torch.equal(generate(Compiled(soft), prompt, 30), generate(soft, prompt, 30)), cap
    print(f"{len(builds)} variants")


if __name__ == "__main__":
    main()
