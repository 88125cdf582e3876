"""One question to one endpoint: OpenEvolve's `LLMEnsemble`, one request a call, no hidden retries.

Whatever the endpoint does becomes an `Answer`; the key is taken out of every text that
comes back, so that an endpoint that repeats it cannot bring it into a record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from evolution.proposers.endpoint import NO_KEY, EndpointConfig


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint said.

    Attributes:
        text: the reply, or None when there was none.
        error: why there was none, in one sentence.
        prompt_tokens, completion_tokens: as reported; None means not reported, not zero.
        seconds: wall seconds of the call.
    """

    text: str | None
    error: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


class Asker(Protocol):
    """Whatever answers a prompt."""

    def ask(
        self, system: str, user: str, seed: int, *, grammar: str | None = None, timeout: float | None = None
    ) -> Answer:
        """Ask once; a failure of any kind is an Answer with `error`."""
        ...


_FINAL = ("AuthenticationError", "PermissionDeniedError", "NotFoundError", "UnprocessableEntityError")
_REFUSED = (*_FINAL, "BadRequestError", "RateLimitError", "InternalServerError", "ConflictError", "APIConnectionError")


def is_final(error: str | None) -> bool:
    """Whether asking again is pointless: the key, the account or the model is refused."""
    return error is not None and error.partition(":")[0] in _FINAL


_PASSING = ("RateLimitError", "InternalServerError", "ConflictError", "APIConnectionError", "APITimeoutError")


def is_passing(error: str | None) -> bool:
    """Whether waiting may help: a busy or unreachable endpoint, not a reply that is merely useless."""
    return error is not None and error.partition(":")[0] in (*_PASSING, "TimeoutError")


def is_unbilled(error: str | None) -> bool:
    """Whether the endpoint stated that it did no work: an error status, or no connection."""
    return error is not None and error.partition(":")[0] in _REFUSED


class EndpointClient:
    """Asks one endpoint.

    Args:
        endpoint: where, and with which settings.

    Raises:
        EndpointError: the key cannot be read.
    """

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint
        self._key = endpoint.read_key()
        # OpenEvolve logs what an endpoint said, which may repeat the key; the ledger has it without.
        logging.getLogger("openevolve.llm.openai").setLevel(logging.CRITICAL + 1)
        self._extra: dict[str, Any] = {}
        self._ensemble = self._connect()

    def _connect(self) -> Any:
        from openevolve.llm.ensemble import LLMEnsemble
        from openevolve.llm.openai import OpenAILLM

        from evolution.proposers.endpoint import openevolve_model

        extra = self._extra

        class Model(OpenAILLM):  # type: ignore[misc]
            """OpenEvolve's model with further fields in the request's body."""

            async def _call_api(self, params: dict[str, Any]) -> Any:
                return await super()._call_api({**params, "extra_body": dict(extra)} if extra else params)

        model = openevolve_model(self._endpoint)
        model.init_client = Model
        return LLMEnsemble([model])

    def ask(
        self, system: str, user: str, seed: int, *, grammar: str | None = None, timeout: float | None = None
    ) -> Answer:
        """Ask once; a failure of any kind is an Answer with `error`.

        Args:
            system, user: the messages.
            seed: of the endpoint's sampling.
            grammar: GBNF that the reply must follow, for llama.cpp's server.
            timeout: seconds, if shorter than the endpoint's.
        """
        self._extra.clear()
        if grammar is not None:
            self._extra.update(grammar=grammar, cache_prompt=False)
        limit = self._endpoint.timeout if timeout is None else min(timeout, self._endpoint.timeout)
        start = time.monotonic()
        text: str | None = None
        error: str | None = None
        try:
            text = asyncio.run(self._ask(system, user, seed, limit))
        except Exception as failure:  # an endpoint may fail in any way its client library knows
            error = f"{type(failure).__name__}: {' '.join(self._plain(str(failure)).split())}"[:500]
        else:
            if not isinstance(text, str) or not text.strip():
                text, error = None, "the endpoint returned an empty reply"
            else:
                text = self._plain(text.encode("utf-8", "backslashreplace").decode("utf-8"))  # halves of characters
        usage = (self._ensemble.last_usage or {}) if error is None else {}
        return Answer(
            text=text,
            error=error,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            seconds=time.monotonic() - start,
        )

    def _plain(self, text: str) -> str:
        return text if self._key == NO_KEY else text.replace(self._key, "[key]")

    async def _ask(self, system: str, user: str, seed: int, limit: float) -> Any:
        self._ensemble.random_state.seed(seed)
        call = self._ensemble.generate_with_context(
            system, [{"role": "user", "content": user}], seed=seed, timeout=limit
        )
        try:
            return await asyncio.wait_for(call, timeout=limit + 5.0)
        except TimeoutError:
            self._hang_up()
            raise TimeoutError(f"no complete reply within {limit:g} s") from None

    def _hang_up(self) -> None:
        """Close the connection of a request that timed out, and make another for the next one.

        The request's thread reads on for as long as single bytes trickle in, and the event loop does not end before it.
        """
        for model in self._ensemble.models:
            model.client.close()
        self._ensemble = self._connect()


def _count(tokens: Any) -> int | None:
    """A number of tokens as an endpoint reports it; None where it is none."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
