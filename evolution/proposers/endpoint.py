"""An OpenAI-compatible endpoint as proposer: its configuration and a quick probe.

The key comes from a file or from the environment variable OPENAI_API_KEY, never from a
configuration, and never enters a message: `EndpointConfig` does not hold it.
"""

from __future__ import annotations

import difflib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import openai

NO_KEY = "no-key"
"""Sent where neither file nor environment has a key: local servers ask for none, clients insist on one."""

PROBE_SECONDS = 30.0


class EndpointError(ValueError):
    """The endpoint cannot be used; one sentence with the value seen and what to do."""


class EndpointConfig(BaseModel):
    """Where proposals are asked for, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_base: str
    """Base URL, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1."""
    model: str
    api_key_file: Path | None = None
    """File whose content is the key; None reads the variable."""
    api_key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; None: no key is sent."""
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int = Field(4096, ge=64)
    timeout: float = Field(120.0, gt=0)
    """Seconds a request."""

    def read_key(self) -> str:
        """The key; `NO_KEY` where there is none.

        Raises:
            EndpointError: the file cannot be read, or its content cannot be a key.
        """
        if self.api_key_file is not None:
            source = f"the key file {str(self.api_key_file)!r}"
            try:
                key = self.api_key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text"
                raise EndpointError(
                    f"{source} cannot be read ({reason}); give a file that holds only the key"
                ) from None
            if not key:
                raise EndpointError(f"{source} is empty; write the key into it")
        else:
            source = self.api_key_variable or "no variable"
            key = os.environ.get(self.api_key_variable, "").strip() if self.api_key_variable else ""
        if not key:
            return NO_KEY
        if not key.isascii() or not key.isprintable() or " " in key:
            raise EndpointError(f"{source} holds spaces, line breaks or special characters; a key is one plain word")
        return key


@dataclass(frozen=True, kw_only=True)
class EndpointCheck:
    """What a probe found: the model that answered, and seconds it took."""

    model: str
    seconds: float


def openevolve_model(config: EndpointConfig, *, seed: int | None = None) -> Any:
    """The endpoint as OpenEvolve's `LLMModelConfig`, without retries: the engine decides what is tried again.

    Raises:
        EndpointError: the key cannot be read.
    """
    from openevolve.config import LLMModelConfig

    return LLMModelConfig(
        api_base=config.api_base,
        api_key=config.read_key(),
        name=config.model,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        timeout=config.timeout,
        retries=0,
        retry_delay=0,
        random_seed=seed,
    )


def _plain(text: object, key: str) -> str:
    """A server's message on one line, without the key."""
    line = " ".join(str(text).replace(key, "[key]").split())
    return line if len(line) <= 200 else line[:200] + " ..."


def _unknown_model(config: EndpointConfig, client: openai.OpenAI, said: str) -> EndpointError:
    import openai

    try:
        known = sorted(model.id for model in client.models.list().data)
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):
        known = []
    if config.model in known or not known:
        return EndpointError(
            f"{config.api_base} answers 404 for model {config.model!r} ({said}); check proposer.model, and that "
            "proposer.api_base ends with the API's version, such as /v1"
        )
    near = difflib.get_close_matches(config.model, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    return EndpointError(
        f"{config.api_base} has no model {config.model!r}; {hint}It has: {', '.join(known[:20])}"
        + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    )


def check_endpoint(config: EndpointConfig) -> EndpointCheck:
    """Ask the model for one short answer.

    Args:
        config: the endpoint.

    Returns:
        The model's name as the endpoint reports it, and the seconds it took.

    Raises:
        EndpointError: it cannot be reached, refuses the key, lacks the model, or does not speak the protocol.
    """
    import openai

    if not config.api_base.startswith(("http://", "https://")):
        raise EndpointError(
            f"proposer.api_base={config.api_base!r} is no URL; it starts with http:// or https://, "
            "such as http://127.0.0.1:8000/v1"
        )
    key = config.read_key()
    seconds = min(config.timeout, PROBE_SECONDS)
    start = time.monotonic()
    with openai.OpenAI(base_url=config.api_base, api_key=key, timeout=seconds, max_retries=0) as client:
        try:
            answer: Any = _ask(client, config.model)
        except openai.APITimeoutError:
            raise EndpointError(
                f"{config.api_base} gave no answer in {seconds:g} s; see whether the server is busy, "
                "or raise proposer.timeout"
            ) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__ if error.__cause__ else "no connection"
            raise EndpointError(
                f"{config.api_base} cannot be reached ({cause}); start the server or correct proposer.api_base"
            ) from None
        except openai.AuthenticationError:
            given = "no key was given" if key == NO_KEY else "the key was refused"
            raise EndpointError(
                f"{config.api_base} answers 401: {given}; set {config.api_key_variable or 'api_key_variable'} or "
                "proposer.api_key_file to a valid key"
            ) from None
        except openai.NotFoundError as error:
            raise _unknown_model(config, client, _plain(error.message, key)) from None
        except openai.APIStatusError as error:
            raise EndpointError(
                f"{config.api_base} answers {error.status_code} for model {config.model!r}: "
                f"{_plain(error.message, key)}; check the account's limits and the model's settings, then try again"
            ) from None
        except (openai.OpenAIError, ValueError) as error:
            raise EndpointError(
                f"{config.api_base} does not answer like an OpenAI-compatible endpoint "
                f"({_plain(type(error).__name__, key)}); check proposer.api_base"
            ) from None
    if not getattr(answer, "choices", None):
        raise EndpointError(
            f"{config.api_base} does not answer like an OpenAI-compatible endpoint (no 'choices' in its reply); "
            "check that proposer.api_base ends with the API's version, such as /v1"
        )
    return EndpointCheck(model=str(answer.model or config.model), seconds=time.monotonic() - start)


def _ask(client: openai.OpenAI, model: str) -> Any:
    """One short completion; models that reason take their limit under another name."""
    import openai

    messages: Any = [{"role": "user", "content": "Reply with the word ready."}]
    try:
        return client.chat.completions.create(model=model, messages=messages, max_tokens=16)
    except openai.BadRequestError as error:
        if "max_completion_tokens" not in str(error.message):
            raise
        return client.chat.completions.create(model=model, messages=messages, max_completion_tokens=64)
