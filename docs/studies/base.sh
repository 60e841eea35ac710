#!/usr/bin/env bash
# The study of docs/guides/what-helps.md: a base of 0.35 million parameters, and it with each of 88 overlays.
# About ten hours on two CPU cores; the same command continues a study that was stopped. Arguments are further overlays.
variants=(
  alibi no_positions learned_positions sinusoidal_positions relative_bias fire forgetting contextual rotary_partial
  path gqa mqa latent differential kv_shift laser value_residual value_embedding value_norm window delta_net
  gated_delta_net mamba2 delta_hybrid qk_norm scalable_softmax log_length_scale soft_cap talking_heads selective
  sink_softmax quiet_softmax sigmoid softpick head_gate sparse_head_gate head_scale attention_on_attention
  normed_output self_value_removal swiglu geglu gated_mlp leaky_relu_squared situ_glu mixture_of_experts deep_embed
  layer_norm dynamic_tanh derf no_norm post_norm sandwich_norm peri_norm pre_and_post_norm hybrid_norm layer_scale
  layer_norm_scaling unit_norm hyper_connection manifold_hyper_connection u_net_skips depth_attention looped macaron
  sandwich_order input_lambdas residual_lambdas gru_gate backout orthogonal_update zero_outputs stochastic_depth smear
  bigram_table token_shift canon tied_head mixture_of_softmaxes soft_cap_head embedding_norm memory attention_only
  multi_token_prediction logit_z_loss soap normuon next_embedding
)
variants=("${variants[@]/#/variants/}")
# Those with sizes, for this base's.
overlays="$(dirname "${BASH_SOURCE[0]}")/overlays"
for name in macaron rotary_partial; do variants=("${variants[@]/#variants\/$name/$overlays/$name}"); done
variants=("${variants[@]/%/.yaml}")
lightning-xt ablate -c language/ablation_base.yaml --variants "${variants[@]}" "$@" --budget bytes=1.5M \
  --seeds 3 --floor 10 --workers 2 --threads 1 --out ablations/base
