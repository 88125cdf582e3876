"""The fixed language model around a candidate's attention.

Token embedding (drawn from N(0, 0.2^2); 0.1 and 0.02 were worse at these sizes), sinusoidal
positions of amplitude 0.1 (at amplitude 1 they drown the tokens: 4.19 in place of 3.68 nats at
width 48 after 400 steps), fixed blocks, a final norm, and a head tied to the embedding. No
dropout. Linear layers start at N(0, 1 / (3 fan_in)), those that write into the residual stream
a further sqrt(2 n_layers) smaller (Radford et al. 2019, section 2.3).

Initial weights: every parameter of the shell is drawn from a generator keyed by (seed,
parameter name), so two arms with the same seed share them whatever their blocks do. A block's
own parameters (below `.mixer.`) keep what its `__init__` made, under a forked generator seeded
by (seed, layer): building a model neither reads nor moves the global random state.
"""

from __future__ import annotations

import difflib
import hashlib
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from data.keyed_random import seed_of, torch_generator
from frameworks.attention.shell import AttentionShell
from frameworks.program import load_module
from frameworks.registry import framework as find_framework
from models.transformer import FixedTransformerBlock, sinusoidal_positions

EMBEDDING_STD = 0.2
POSITION_AMPLITUDE = 0.1
_RESIDUAL_WRITERS = ("out_proj.weight", "down_proj.weight")
VARIANTS = ("standard", "evolvable", "evolved")


class LanguageModel(nn.Module):
    """Predicts the next token. Letters: B batch, T tokens, C width, V vocabulary.

    Args:
        attention: class of the attention layer, called as `attention(d_model=..., n_heads=...)`.
        vocab_size: V.
        d_model: C; `n_heads` must divide it.
        n_layers: number of blocks.
        n_heads: heads an attention layer.
        seed: decides the initial weights.

    Raises:
        ValueError: a size below 1, or `n_heads` does not divide `d_model`.
    """

    positions: Tensor

    def __init__(
        self,
        attention: type[nn.Module],
        *,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("vocab_size", vocab_size), ("d_model", d_model), ("n_layers", n_layers)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self.vocab_size = vocab_size
        self.d_model = d_model
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(vocab_size, d_model)
            blocks = []
            for layer in range(n_layers):
                torch.default_generator.manual_seed(seed_of("block", seed, layer))
                blocks.append(FixedTransformerBlock(d_model, attention(d_model=d_model, n_heads=n_heads)))
            self.blocks = nn.ModuleList(blocks)
            self.norm = nn.LayerNorm(d_model)
        self.register_buffer("positions", POSITION_AMPLITUDE * sinusoidal_positions(256, d_model), persistent=False)
        self._draw_shell(seed)

    def _draw_shell(self, seed: int) -> None:
        residual_scale = (2 * len(self.blocks)) ** -0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if ".mixer." in name or parameter.ndim < 2:
                    continue
                if parameter is self.embedding.weight:
                    std = EMBEDDING_STD
                else:
                    std = (3 * parameter.shape[1]) ** -0.5
                    if name.endswith(_RESIDUAL_WRITERS):
                        std *= residual_scale
                parameter.normal_(0.0, std, generator=torch_generator("shell", seed, name))

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) int64 to the features (B, T, C) after the final norm."""
        length = tokens.shape[1]
        if length > self.positions.shape[0]:
            self._extend_positions(length)
        x = F.embedding(tokens, self.embedding.weight) + self.positions[:length]
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.norm(x))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) int64 to logits (B, T, V) of each next token."""
        return F.linear(self.hidden(tokens), self.embedding.weight)

    def n_parameters(self, embedding: bool = False) -> int:
        """Number of parameters; the embedding (and head, which is the same) counts only if asked for."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return total if embedding else total - self.embedding.weight.numel()

    def _extend_positions(self, length: int) -> None:
        # An inference tensor kept here would break later training.
        with torch.inference_mode(False):
            size = 1 << (length - 1).bit_length()
            positions = POSITION_AMPLITUDE * sinusoidal_positions(size, self.d_model)
            self.positions = positions.to(self.positions.device)


def attention_class(framework: str, variant: str = "standard", source: str | None = None) -> type[nn.Module]:
    """The attention layer of a framework.

    Args:
        framework: name in the registry.
        variant: `standard` (the fixed reference), or `evolvable`, also called `evolved` (the shell
            around the block).
        source: text of a program file; its evolvable class is taken. The text is executed: pass
            a candidate's source only inside a sandboxed worker.

    Raises:
        UnknownFrameworkError: no framework of that name (a ValueError).
        ValueError: unknown variant, `source` with `standard`, or a source without the class.
    """
    found = find_framework(framework)
    if variant not in VARIANTS:
        near = difflib.get_close_matches(variant, VARIANTS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown variant {variant!r}{hint} Known: {', '.join(VARIANTS)}")
    if source is not None and variant == "standard":
        raise ValueError("variant 'standard' is the fixed reference and takes no program; use variant 'evolved'")
    name = found.standard_class if variant == "standard" else found.evolvable_class
    text = found.pristine if source is None else source
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    label = "pristine" if source is None else "candidate"
    module = load_module(text, f"evoscale_{label}_{digest}")
    loaded = getattr(module, name, None)
    if not (isinstance(loaded, type) and issubclass(loaded, AttentionShell)):
        raise ValueError(f"the program does not define the class {name}, a subclass of AttentionShell")
    return loaded


def create_language_model(
    framework: str,
    variant: str = "standard",
    *,
    vocab_size: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    seed: int = 0,
    source: str | None = None,
) -> LanguageModel:
    """A language model with a framework's attention; see `attention_class` and `LanguageModel`.

    Raises:
        ValueError: as those two do.
    """
    return LanguageModel(
        attention_class(framework, variant, source),
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        seed=seed,
    )
