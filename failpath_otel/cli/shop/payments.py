"""Payments by HTTP, and the provider that takes them, which in this demo is a part of the shop itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from typing import Annotated, Any, Final

import httpx
from fastapi import APIRouter, Header, Response
from pydantic import BaseModel

WEBHOOK_SECRET: Final = b"demo"
GOOD_CARD: Final = "tok_visa"
DECLINED_CARD: Final = "tok_insufficient_funds"
BUSY_CARD: Final = "tok_busy"


class CardDeclined(Exception):  # noqa: N818 - the name is what the page shows
    """The provider refuses the card; trying again would not help."""


class GatewayUnavailable(Exception):  # noqa: N818 - likewise
    """The provider cannot answer now; trying again may help."""


class Charge(BaseModel):
    """What is charged: a card by its token, never by its number."""

    card: str
    amount_cents: int


async def charge(client: httpx.AsyncClient, card: str, amount_cents: int, key: str) -> str:
    """Charges a card and gives the charge's id.

    Args:
        client: Knows the provider's address.
        card: The card's token.
        amount_cents: How much.
        key: The same key is charged once.

    Raises:
        CardDeclined: The card was refused.
        GatewayUnavailable: The provider could not answer.
    """
    body = Charge(card=card, amount_cents=amount_cents).model_dump()
    answer = await client.post("/gateway/charges", json=body, headers={"Idempotency-Key": key})
    content: dict[str, Any] = answer.json()
    if answer.status_code == 402:
        raise CardDeclined(content["reason"])
    if answer.status_code == 503:
        raise GatewayUnavailable(content["reason"])
    answer.raise_for_status()
    return str(content["id"])


def sign(body: bytes) -> str:
    """The signature under a webhook's body."""
    return hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()


def gateway() -> APIRouter:
    """The payment provider: takes most cards, refuses one, and is too busy for another when first asked."""
    router = APIRouter(prefix="/gateway")
    asked: Counter[str] = Counter()

    @router.post("/charges")
    async def take(  # pyright: ignore[reportUnusedFunction]
        wanted: Charge, response: Response, idempotency_key: Annotated[str, Header()]
    ) -> dict[str, str]:
        await asyncio.sleep(0.03)
        asked[idempotency_key] += 1
        if wanted.card == DECLINED_CARD:
            response.status_code = 402
            return {"reason": "insufficient funds"}
        if wanted.card == BUSY_CARD and asked[idempotency_key] == 1:
            response.status_code = 503
            return {"reason": "the provider is busy, try again"}
        return {"id": f"ch_{idempotency_key}"}

    return router
