"""TinyStories (Eldan and Li 2023, arXiv:2305.07759) from the Hugging Face hub, read through `datasets`.

Choices: a copy that is already in the hub's cache is used without asking the network, so that a corpus does not
change under a study and works offline from then on; otherwise one short question finds out whether the
hub answers, because the libraries' own retries take up to minutes to say that it does not. The train files are
read as a stream (2.1 million stories, 1.9 GB of text; `max_bytes` takes the first of them).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from data.corpus_error import CorpusError
from data.text_files import pieces

REPOSITORY = "roneneldan/TinyStories"
_FILES = "data/train-*.parquet"
_ANSWER_SECONDS = 5.0


class TinyStories:
    """The train split of TinyStories; its documents are stories.

    Attributes:
        name: `tinystories`.
    """

    def __init__(self, hub_cache: Path | None = None) -> None:
        """Finds the files in `hub_cache` (the hub's own cache folder when None), or downloads them there.

        Raises:
            CorpusError: they are not there and the hub does not answer.
        """
        self.name = "tinystories"
        self._files = _cached_files(hub_cache) or _downloaded_files(hub_cache)

    def fingerprint(self) -> str:
        """sha256 of the revision on the hub, the file names and their sizes."""
        parts = ["tinystories 1", self._files[0].parent.parent.name]
        parts += [f"{file.name} {file.stat().st_size}" for file in self._files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """One document a story."""
        import datasets

        rows = datasets.load_dataset(
            "parquet", data_files=[str(file) for file in self._files], split="train", streaming=True
        )
        for row in rows:
            yield from pieces(row["text"])

    def entropy_floor(self, n_tokens: Callable[[str], int]) -> float | None:
        """Unknown for real text."""
        return None


def _cached_files(hub_cache: Path | None) -> list[Path]:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            REPOSITORY, repo_type="dataset", allow_patterns=_FILES, cache_dir=hub_cache, local_files_only=True
        )
    except Exception:  # nothing there or only a part of it; the class differs between versions of the client
        return []
    return _whole_set(Path(folder))


def _downloaded_files(hub_cache: Path | None) -> list[Path]:
    import huggingface_hub

    try:
        revision = huggingface_hub.HfApi().dataset_info(REPOSITORY, timeout=_ANSWER_SECONDS).sha
        folder = huggingface_hub.snapshot_download(
            REPOSITORY, repo_type="dataset", allow_patterns=_FILES, cache_dir=hub_cache, revision=revision
        )
    except Exception as error:  # the HTTP library's errors differ between versions of the hub's client
        raise CorpusError(
            f"the corpus tinystories cannot be fetched from the Hugging Face hub ({type(error).__name__}); "
            "allowed without internet: the sources stdlib and stories, or the path of a .txt, .jsonl or .parquet file"
        ) from error
    files = _whole_set(Path(folder))
    if not files:
        raise CorpusError(f"the hub's {REPOSITORY} holds no whole set of {_FILES}; allowed: stdlib, stories or a file")
    return files


def _whole_set(folder: Path) -> list[Path]:
    """The train files in `folder` in order, or none if one that their names promise is missing."""
    files = sorted(folder.glob(_FILES))
    promised = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)", file.name))}
    return files if promised == {len(files)} else []
