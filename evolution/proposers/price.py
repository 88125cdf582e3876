"""What a call costs: stated in the configuration, free where it runs here, or from the price table."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from evolution.proposer_config import ArmSection, PriceSection

TABLE = Path(__file__).with_name("prices.yaml")
OPENAI_API_BASE = "https://api.openai.com/v1"
FREE = PriceSection(prompt=0.0, completion=0.0)


@cache
def price_table() -> dict[str, PriceSection]:
    """Model -> price, of OpenAI's own address."""
    import yaml

    loaded = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {str(model): PriceSection.model_validate(price) for model, price in loaded.items()}


def price_of(section: ArmSection) -> PriceSection | None:
    """The price of a proposer's tokens; None where nobody knows it."""
    if section.price is not None:
        return section.price
    if section.kind != "endpoint":
        return FREE
    if (section.api_base or OPENAI_API_BASE).rstrip("/") != OPENAI_API_BASE:
        return None
    return price_table().get(section.model or "")


def dollars(price: PriceSection, prompt_tokens: int, completion_tokens: int) -> float:
    """Dollars of a call."""
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / 1e6
