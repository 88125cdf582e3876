"""Probes train: attention recalls, a model that cannot look back does not, and a run repeats to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from data.probes import probe, probes
from models.language_model import attention_class
from training.probing import ProbeSettings, measure, run_probe

SOFTMAX = attention_class("coefficient_dynamics")
SHORT = ProbeSettings(steps=3, batch_size=4, d_model=16, n_heads=2)


class NoLookingBack(nn.Module):
    """Mixes nothing along the sequence."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", list(probes()))
def test_every_probe_runs_and_repeats_to_the_last_bit(name: str) -> None:
    first = run_probe(probe(name), SOFTMAX, SHORT)
    again = run_probe(probe(name), SOFTMAX, SHORT)
    assert first.model_dump(exclude={"cpu_seconds"}) == again.model_dump(exclude={"cpu_seconds"})
    assert 0.0 <= first.accuracy <= 1.0


def test_facts_are_learnt_and_need_no_looking_back_beyond_the_key() -> None:
    settings = ProbeSettings(steps=150, batch_size=16)
    assert run_probe(probe("memorisation"), SOFTMAX, settings).accuracy > 0.5


def test_a_model_that_cannot_look_back_cannot_copy() -> None:
    settings = ProbeSettings(steps=60, batch_size=8)
    result = run_probe(probe("selective_copy"), NoLookingBack, settings)
    assert result.accuracy < 2 * result.chance


def test_compression_reads_the_last_position_only() -> None:
    from models.language_model import LanguageModel
    from training.probing import _decoder, _features

    model = LanguageModel(SOFTMAX, vocab_size=20, d_model=16, n_layers=1, n_heads=2)
    x, _ = probe("compression").batch(batch_size=2, seed=1, step=0)
    hidden = model.hidden(x)
    made = []
    model.hidden = lambda tokens: hidden  # type: ignore[method-assign]
    decoder = _decoder(16)
    made.append(_features(model, decoder, x))
    hidden = torch.cat([torch.randn_like(hidden[:, :-1]), hidden[:, -1:]], dim=1)
    made.append(_features(model, decoder, x))
    assert made[0].equal(made[1])
    assert made[0].shape == (2, 16, 16)


def test_the_worker_takes_and_gives_json() -> None:
    arguments = {
        "probe": "compression",
        "framework": "matrix_mixer",
        "source": None,
        "settings": SHORT.model_dump(mode="json"),
    }
    assert measure(arguments)["probe"] == "compression"
    with pytest.raises(ValueError, match="unknown probe"):
        measure(arguments | {"probe": "compresion"})
