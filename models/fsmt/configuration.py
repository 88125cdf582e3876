"""The shape of an FSMT (FairSeq machine translation) model, as a user writes it.

Choices: the three tables (source, target, output projection) are tied unless asked otherwise, which needs one
vocabulary for both languages; heads divide d_model; dropout is only used by gradient training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from transformers import FSMTConfig


class FsmtShape(BaseModel):
    """Sizes of a model; the defaults are the tiny model of the embedded corpus.

    Attributes:
        d_model: width; even and at least 4, for the sinusoidal positions.
        encoder_layers, decoder_layers: layers of each stack.
        n_heads: attention heads of both stacks; divides d_model.
        ffn_dim: width of the feed-forward layers of both stacks.
        vocab_size: entries of the joint vocabulary the tokenizer may have at most.
        max_position_embeddings: longest sequence in tokens.
        tie_word_embeddings: one table for source, target and output.
        dropout: used while training by gradient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: int = Field(128, ge=4, multiple_of=2)
    encoder_layers: int = Field(3, ge=1)
    decoder_layers: int = Field(1, ge=1)
    n_heads: int = Field(4, ge=1)
    ffn_dim: int = Field(512, ge=1)
    vocab_size: int = Field(3000, ge=100, le=65536)
    max_position_embeddings: int = Field(256, ge=8)
    tie_word_embeddings: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> FsmtShape:
        if self.d_model % self.n_heads:
            allowed = [n for n in range(1, min(self.d_model, 64) + 1) if self.d_model % n == 0]
            raise ValueError(f"n_heads {self.n_heads} does not divide d_model {self.d_model}; allowed: {allowed}")
        return self


def fsmt_config(shape: FsmtShape, langs: tuple[str, str], *, n_tokens: int | None = None) -> FSMTConfig:
    """The Hugging Face configuration of a shape.

    Args:
        shape: the sizes.
        langs: source and target language, such as ("en", "de").
        n_tokens: real size of the vocabulary; `shape.vocab_size` when None.
    """
    from transformers import FSMTConfig

    size = shape.vocab_size if n_tokens is None else n_tokens
    values: dict[str, Any] = {
        "langs": list(langs),
        "src_vocab_size": size,
        "tgt_vocab_size": size,
        "d_model": shape.d_model,
        "encoder_layers": shape.encoder_layers,
        "decoder_layers": shape.decoder_layers,
        "encoder_attention_heads": shape.n_heads,
        "decoder_attention_heads": shape.n_heads,
        "encoder_ffn_dim": shape.ffn_dim,
        "decoder_ffn_dim": shape.ffn_dim,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "dropout": shape.dropout,
    }
    return FSMTConfig(**values)


SPECIFIED = FsmtShape(
    d_model=1024,
    encoder_layers=8,
    decoder_layers=2,
    n_heads=16,
    ffn_dim=4096,
    vocab_size=40963,
    max_position_embeddings=512,
)
"""The 8 + 2 layer English-German model of the base study."""
