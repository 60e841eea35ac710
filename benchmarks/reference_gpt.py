"""Plain transformer for comparison: the model of nanoGPT, written independently in pure torch."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReferenceLayer(nn.Module):
    """Layer of attention and an MLP, each after a LayerNorm and added to the stream.

    Args:
        dim: width of the stream.
        heads: attention heads.
        dropout: fraction of each output dropped in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.to_qkv, self.from_heads = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        gathered = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = x + F.dropout(self.from_heads(gathered.transpose(1, 2).flatten(2)), dropout)
        return x + F.dropout(self.narrow(F.gelu(self.widen(self.mlp_norm(x)))), dropout)


class ReferenceGPT(nn.Module):
    """Radford et al., 2019 (GPT-2): learned positions, LayerNorm before each branch, GELU, the head tied to the table.

    Args:
        vocab_size: number of different tokens.
        dim: width of the stream.
        depth: number of layers.
        heads: attention heads.
        seq_len: longest row.
        dropout: fraction of the embeddings and of each branch's output dropped in training.
    """

    def __init__(
        self, vocab_size: int, *, dim: int, depth: int, heads: int, seq_len: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(seq_len, dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(ReferenceLayer(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("from_heads.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the token after each."""
        at = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(at))
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.tokens.weight)


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean nats of the tokens after the first, given the logits of those before the last."""
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def reference_optimizer(
    model: nn.Module, *, lr: float, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1
) -> torch.optim.AdamW:
    """Return AdamW that decays only matrices and tables.

    Args:
        model: the model to train.
        lr: the highest learning rate.
        betas: of the moments; (0.9, 0.99) suits small batches.
        weight_decay: of matrices and tables.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, min_fraction: float = 0.1) -> float:
    """Return the fraction of the learning rate that a step uses.

    Args:
        step: from 0.
        steps: of the run.
        warmup_steps: until the full rate.
        min_fraction: the fraction at the end.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    way = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return min_fraction + (1 - min_fraction) * 0.5 * (1 + math.cos(math.pi * way))
