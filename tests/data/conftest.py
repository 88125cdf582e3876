"""Small corpora, built once per test process, and the real text files where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.corpus import Corpus, CorpusConfig, load_corpus

REAL_TEXTS = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def library(cache: Path) -> Corpus:
    """400 kB of the standard library at V=300."""
    return load_corpus(CorpusConfig(max_bytes=400_000, vocab_size=300), cache)


@pytest.fixture(scope="session")
def stories(cache: Path) -> Corpus:
    """600 kB of generated stories at V=512."""
    return load_corpus(CorpusConfig(source="stories", max_bytes=600_000), cache)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Sixty different paragraphs."""
    path = tmp_path / "paragraphs.txt"
    path.write_text("\n\n".join(f"Paragraph {n} tells that {n} and {n} make {2 * n}. " * 5 for n in range(60)))
    return path


@pytest.fixture
def real_text(request: pytest.FixtureRequest) -> Path:
    """A real text file by its path under the folder of shared texts; skips where it is absent."""
    path: Path = REAL_TEXTS / request.param
    if not path.exists():
        pytest.skip(f"the real text {request.param} is not beside the repository (../shared/data)")
    return path
