// The options of a request, by kind of model. Defaults and ranges come from the engine, by GET /v1/models; `slider` is the
// usual part of a range.

const SAMPLING = [
  {
    name: "temperature", label: "Temperature", slider: [0, 2], step: 0.05,
    hint: "Divides the logits: below 1 is more certain, 0 always takes the most likely token.",
  },
  {
    name: "top_k", label: "Top k", step: 1, unset: "any",
    hint: "Sample only from the k most likely tokens.",
  },
  {
    name: "top_p", label: "Top p", slider: [0.01, 1], step: 0.01, off: 1, unset: "any",
    hint: "Sample only from the most likely tokens with this total probability.",
  },
  {
    name: "min_p", label: "Min p", slider: [0, 1], step: 0.01, off: 0, unset: "any",
    hint: "Sample only from tokens with at least this fraction of the highest probability.",
  },
];

const PENALTIES = [
  {
    name: "repetition_penalty", label: "Repetition", slider: [0.8, 2], step: 0.05, off: 1, unset: "none",
    hint: "Divides the logits of tokens that the sequence already has.",
  },
  {
    name: "presence_penalty", label: "Presence", slider: [-2, 2], step: 0.1, off: 0, unset: "none",
    hint: "Lowers the logits of tokens that were generated before, by a constant.",
  },
  {
    name: "frequency_penalty", label: "Frequency", slider: [-2, 2], step: 0.1, off: 0, unset: "none",
    hint: "Lowers the logits of tokens, by how often they were generated before.",
  },
];

const SEED = {
  name: "seed", label: "Seed", step: 1, least: 0, most: Number.MAX_SAFE_INTEGER, initial: 0,
  hint: "Start of the random numbers: with the same options and seed a result can be reproduced.",
};

const MAX_TOKENS = {
  name: "max_tokens", label: "Most new tokens", step: 1, unset: "default",
  hint: "A completion ends after this number of tokens at the latest.",
};

/** Groups of options by kind of model; a group without a title is always open. */
export const GROUPS = {
  language_model: [
    {
      options: [
        MAX_TOKENS,
        {
          name: "n", label: "Completions", step: 1,
          hint: "Completions side by side; number i samples with the seed plus i.",
        },
        SEED,
      ],
    },
    { title: "Sampling", open: true, options: SAMPLING },
    { title: "Penalties", options: PENALTIES },
    {
      title: "Stop strings",
      options: [
        {
          name: "stop", label: "One per line", lines: true, unset: "none",
          hint: "A completion ends before the first of these strings. Write \\n for a new line, \\t for a tab.",
        },
      ],
    },
  ],
  encoder_decoder: [
    {
      options: [
        {
          name: "beams", label: "Beams", slider: [1, 16], step: 1,
          hint: "Hypotheses of beam search; 1 decodes greedily, or samples at a temperature above 0.",
        },
        {
          name: "n_best", label: "Translations listed", slider: [1, 16], step: 1,
          hint: "Best hypotheses to list; at most the number of beams.",
        },
        {
          name: "length_penalty", label: "Length penalty", slider: [0, 2], step: 0.05,
          hint: "Scores are divided by the length to this power: higher favours longer translations.",
        },
        MAX_TOKENS,
      ],
    },
    { title: "Sampling", options: [...SAMPLING, SEED] },
  ],
};

/** Complete an option by the engine's default and range, from a model's `defaults`. */
export function resolve(option, model) {
  const { default: initial, minimum, above, maximum } = model.defaults[option.name] ?? {};
  return {
    ...option,
    initial: initial ?? option.initial ?? null,
    least: option.least ?? minimum ?? above ?? null,
    most: option.most ?? maximum ?? null,
    slider: option.slider?.map((end) => Math.min(Math.max(end, minimum ?? end), maximum ?? end)),
  };
}
