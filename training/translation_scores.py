"""How good translations are: fitness of one sentence, scores of a corpus, and whether two systems differ.

Choices: all by sacrebleu. A member's fitness is a mix of sentence chrF and smoothed sentence BLEU, both from 0 to 1:
BLEU without smoothing is 0 for most short sentences, and chrF alone rewards longer outputs. Corpora are scored by
corpus BLEU and chrF and compared by paired bootstrap resampling (Koehn 2004), two-sided, with sacrebleu's fixed
resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CorpusScore:
    """Scores of a test set.

    Attributes:
        bleu, chrf: corpus scores, 0 to 100.
        length_ratio: words of the translations over words of the references, as BLEU counts them.
    """

    bleu: float
    chrf: float
    length_ratio: float

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return asdict(self)

    @property
    def selection(self) -> float:
        """What models are selected by: the mean of both."""
        return (self.bleu + self.chrf) / 2


def score_corpus(translations: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """Corpus BLEU, chrF and length ratio of aligned sentences."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu = BLEU().corpus_score(list(translations), [list(references)])
    chrf = CHRF().corpus_score(list(translations), [list(references)])
    return CorpusScore(bleu=bleu.score, chrf=chrf.score, length_ratio=bleu.sys_len / max(bleu.ref_len, 1))


def paired_bootstrap(
    baseline: Sequence[str], system: Sequence[str], references: Sequence[str], n_samples: int = 1000
) -> dict[str, float]:
    """p-values of the differences in corpus BLEU and chrF: {"bleu": p, "chrf": p}.

    Args:
        baseline, system: translations of the same sources.
        references: one for each.
        n_samples: resamples; the least p is 1 / (n_samples + 1).
    """
    import logging

    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    if list(baseline) == list(system):
        return {"bleu": 1.0, "chrf": 1.0}
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)
    references_given = [list(references)]
    test = PairedTest(
        [("baseline", list(baseline)), ("system", list(system))],
        {"bleu": BLEU(references=references_given), "chrf": CHRF(references=references_given)},
        references=None,
        test_type="bs",
        n_samples=n_samples,
    )
    results: dict[str, Any] = test()[1]
    found = {}
    for name, rows in results.items():
        if name != "System":
            found["bleu" if "bleu" in name.lower() else "chrf"] = float(rows[1].p_value)
    return found


class SentenceFitness:
    """Fitness of single translations, each (translation, reference) scored once.

    Args:
        chrf_weight: share of chrF, the rest is smoothed BLEU; in [0, 1].

    Raises:
        ValueError: the weight is out of range.
    """

    def __init__(self, chrf_weight: float = 0.5) -> None:
        from sacrebleu.metrics import BLEU, CHRF

        if not 0 <= chrf_weight <= 1:
            raise ValueError(f"chrf_weight {chrf_weight}: must lie in [0, 1]")
        self._weight = chrf_weight
        self._bleu = BLEU(effective_order=True)
        self._chrf = CHRF()
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, translation: str, reference: str) -> float:
        """The fitness, 0 to 1."""
        key = (translation, reference)
        if key not in self._known:
            if len(self._known) >= 50_000:
                self._known.clear()
            chrf = self._chrf.sentence_score(translation, [reference]).score if self._weight > 0 else 0.0
            bleu = self._bleu.sentence_score(translation, [reference]).score if self._weight < 1 else 0.0
            self._known[key] = (self._weight * chrf + (1 - self._weight) * bleu) / 100
        return self._known[key]
