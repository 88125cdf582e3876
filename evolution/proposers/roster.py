"""The proposers of a run, and which of them is asked next.

One proposer is the ordinary case. Of several, a bandit or fixed weights choose; a proposer
whose endpoint refuses key or model for good is closed, and asked no more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.keyed_random import seed_of
from evolution.proposer_config import EMBEDDED, ArmSection, ChoiceSection, PriceSection
from evolution.proposers.bandit import Bandit
from evolution.proposers.client import Asker, EndpointClient
from evolution.proposers.endpoint import EndpointConfig, EndpointError, check_endpoint
from evolution.proposers.operators.slots import SLOTS
from evolution.proposers.price import OPENAI_API_BASE, price_of

if TYPE_CHECKING:
    from evolution.config import EvolveConfig
    from frameworks.registry import Framework

CATALOGUE_DESCRIPTION = "operator catalogue (no LLM): literature-backed code edits and recombination"
COMPONENT_TOKENS = 96
"""Most tokens of one line; longer than any that the grammar makes."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One proposer.

    Attributes:
        name: in records and reports.
        style: what it is asked for.
        uses_llm: whether a language model answers.
        grammar: whether its server keeps replies to a GBNF grammar.
        max_tokens: most tokens of a reply.
        price: dollars a million tokens; None when nobody knows it.
        client: who answers; None in a replay.
    """

    name: str
    style: Literal["block", "component"]
    uses_llm: bool
    grammar: bool
    max_tokens: int
    price: PriceSection | None
    client: Asker | None


class Roster:
    """Proposers and the choice among them.

    Args:
        arms: at least one, with different names.
        choice: how one is chosen.
        weights: of the arms, read when chosen by weight.
        seed: the run's seed.

    Raises:
        ValueError: none, or two of the same name.
    """

    def __init__(self, arms: Sequence[Arm], *, choice: ChoiceSection, weights: Sequence[float], seed: int) -> None:
        names = [arm.name for arm in arms]
        if not arms or len(set(names)) != len(names):
            raise ValueError(f"proposers are called {names}; there must be at least one, each with its own name")
        self.arms = tuple(arms)
        self.choice = choice
        self._weights = list(weights)
        self._seed = seed
        self._bandit = Bandit(len(arms), seed=seed, exploration=choice.exploration, per_cost=choice.per != "proposal")
        self._closed: dict[int, str] = {}

    @classmethod
    def single(cls, client: Asker | None, name: str, *, uses_llm: bool = True) -> Roster:
        """One proposer that is asked for whole blocks and has no price."""
        arm = Arm(
            name=name, style="block", uses_llm=uses_llm, grammar=False, max_tokens=4096, price=None, client=client
        )
        return cls([arm], choice=ChoiceSection(), weights=[1.0], seed=0)

    @property
    def description(self) -> str:
        """The proposers in words."""
        return "; ".join(arm.name for arm in self.arms)

    @property
    def why_closed(self) -> str | None:
        """Why nobody is left to ask; None while somebody is."""
        if len(self._closed) < len(self.arms):
            return None
        return "; ".join(f"{self.arms[index].name}: {reason}" for index, reason in self._closed.items())

    def choose(self, iteration: int, attempt: int) -> int:
        """Index of the proposer to ask.

        Raises:
            ValueError: all are closed.
        """
        closed = frozenset(self._closed)
        if self.choice.by == "bandit":
            return self._bandit.choose(closed)
        open_ = [index for index in range(len(self.arms)) if index not in closed]
        if not open_:
            raise ValueError("no proposer is left to choose from")
        rng = random.Random(seed_of("proposer", self._seed, iteration, attempt))
        return rng.choices(open_, weights=[self._weights[index] for index in open_])[0]

    def credit(self, index: int, gain: float | None, *, seconds: float, dollars: float | None) -> None:
        """What a choice came to: gain in standard deviations, None for none; see `Bandit.credit`."""
        # A second and a ten-thousandth of a dollar stand for what every proposal costs besides.
        cost = {"proposal": 1.0, "second": seconds + 1.0, "dollar": (dollars or 0.0) + 1e-4}[self.choice.per]
        self._bandit.credit(index, gain, cost)

    def close(self, index: int, reason: str) -> None:
        """Ask a proposer no more."""
        self._closed.setdefault(index, reason)


def sections_of(config: EvolveConfig) -> list[ArmSection]:
    """The configured proposers."""
    return list(config.proposers) or [config.proposer]


def name_of(section: ArmSection) -> str:
    """What a proposer is called."""
    if section.name:
        return section.name
    if section.kind == "catalogue":
        return CATALOGUE_DESCRIPTION
    if section.kind == "local":
        from evolution.proposers.local_model import EMBEDDED_NAME

        return f"{EMBEDDED_NAME if section.model == EMBEDDED else Path(section.model or '').stem}, run here"
    return f"{section.model} at {section.api_base or OPENAI_API_BASE}"


def model_file(section: ArmSection) -> dict[str, str]:
    """File name and hash of a local model, for the manifest; empty for the others and where the model is elsewhere."""
    if section.kind != "local":
        return {}
    from evolution.proposers.local_model import find_model

    try:
        file = find_model(section.model or "")
    except EndpointError:
        return {}
    return {"file": file.path.name, "sha256": file.sha256()}


def check_roster(config: EvolveConfig) -> list[EndpointConfig | None]:
    """Look at every proposer before anything is written: endpoints answer, local models are there, prices are known.

    Returns:
        The endpoint of each; None where it is started with the run.

    Raises:
        EndpointError: one cannot be used.
    """
    sections = sections_of(config)
    names = [name_of(section) for section in sections]
    if len(set(names)) != len(names):
        raise EndpointError(f"two proposers are called the same ({', '.join(names)}); give each a 'name'")
    for section, name in zip(sections, names, strict=True):
        if section.style == "component" and config.framework not in SLOTS:
            raise EndpointError(
                f"{name} is asked for components, and {config.framework} has none; they exist for {', '.join(SLOTS)}. "
                "Ask for the whole block: prompt: block"
            )
    if config.budget.dollars is not None:
        for section, name in zip(sections, names, strict=True):
            if price_of(section) is None:
                raise EndpointError(
                    f"budget.dollars is set, and the price of {name} is not known; state it (dollars a million "
                    "tokens), such as --set 'proposer.price={prompt: 0.15, completion: 0.6}'"
                )
    from evolution.proposers.local_model import find_model

    for section in sections:
        if section.kind == "local":
            find_model(section.model or "")
    return [_endpoint(section) for section in sections]


def _endpoint(section: ArmSection) -> EndpointConfig | None:
    if section.kind != "endpoint":
        return None
    endpoint = endpoint_config(section, section.api_base or OPENAI_API_BASE, section.model or "")
    check_endpoint(endpoint)
    return endpoint


def endpoint_config(section: ArmSection, api_base: str, model: str) -> EndpointConfig:
    """The endpoint's settings for one proposer."""
    return EndpointConfig(
        api_base=api_base,
        model=model,
        api_key_file=section.api_key_file if section.kind == "endpoint" else None,
        api_key_variable=section.api_key_variable if section.kind == "endpoint" else None,
        temperature=section.degree,
        max_tokens=COMPONENT_TOKENS if section.style == "component" else section.max_tokens,
        timeout=section.patience,
    )


@contextmanager
def open_roster(
    config: EvolveConfig, framework: Framework, endpoints: Sequence[EndpointConfig | None] | None
) -> Iterator[Roster]:
    """Start what runs here and connect to the rest; all of it ends with the block.

    Args:
        endpoints: from `check_roster`; None: nobody is asked (a replay).
    """
    sections = sections_of(config)
    with ExitStack() as stack:
        arms = []
        for index, section in enumerate(sections):
            client = None if endpoints is None else _client(section, endpoints[index], config, framework, stack)
            component = section.style == "component"
            arms.append(
                Arm(
                    name=name_of(section),
                    style=section.style,
                    uses_llm=section.kind != "catalogue",
                    grammar=section.kind == "local" and component,
                    max_tokens=COMPONENT_TOKENS if component else section.max_tokens,
                    price=price_of(section),
                    client=client,
                )
            )
        yield Roster(arms, choice=config.choice, weights=[section.weight for section in sections], seed=config.seed)


def _client(
    section: ArmSection, endpoint: EndpointConfig | None, config: EvolveConfig, framework: Framework, stack: ExitStack
) -> Asker:
    if section.kind == "catalogue":
        from evolution.proposers.catalogue_server import MODEL, CatalogueServer

        server = stack.enter_context(CatalogueServer(framework.name, config.seed))
        return EndpointClient(endpoint_config(section, server.base_url, MODEL))
    if section.kind == "local":
        from evolution.proposers.local_model import CONTEXT_TOKENS, LARGE_CONTEXT_TOKENS, LocalModel, find_model

        file = find_model(section.model or "")
        context = CONTEXT_TOKENS if section.style == "component" else LARGE_CONTEXT_TOKENS
        model = stack.enter_context(LocalModel(file, context))
        return EndpointClient(endpoint_config(section, model.base_url, file.name))
    if endpoint is None:
        raise EndpointError(f"the endpoint of {section.model} was not checked")
    return EndpointClient(endpoint)
