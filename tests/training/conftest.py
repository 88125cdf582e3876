"""A small real corpus and a run that takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data.corpus import Corpus, CorpusConfig, load_corpus
from training.run_spec import RunSpec

MakeSpec = Callable[..., RunSpec]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """300 kB of generated stories at V=300."""
    config = CorpusConfig(source="stories", vocab_size=300, max_bytes=300_000)
    return load_corpus(config, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def make_spec(corpus: Corpus) -> MakeSpec:
    """A tiny run of 30 steps on the small corpus, with changes."""

    def make(**changes: Any) -> RunSpec:
        fields: dict[str, Any] = {
            "candidate": "standard",
            "framework": "matrix_mixer",
            "size": "tiny",
            "d_model": 16,
            "n_layers": 2,
            "n_heads": 2,
            "vocab_size": 300,
            "seq_len": 16,
            "batch_size": 4,
            "steps": 30,
            "learning_rate": 1e-2,
            "seed": 3,
            "purpose": "search",
            "eval_split": "search_validation",
            "eval_every": 10,
            "eval_tokens": 320,
            "corpus_hash": corpus.hash,
            "tokenizer_hash": corpus.tokenizer_hash,
        }
        return RunSpec(**{**fields, **changes})

    return make
