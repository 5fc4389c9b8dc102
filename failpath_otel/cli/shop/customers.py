"""The shop's customers, over real HTTP, and what each of their visits must have come to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from failpath_otel.cli.shop import payments
from failpath_otel.cli.story import RunStory, StepStory, success

OPTED_OUT = "the customer opted out of e-mail"


class SurpriseError(Exception):
    """The shop answered something else than it should."""


@dataclass(frozen=True)
class Visit:
    """What was asked of the shop, what it answered, and the run that this was."""

    request: str
    answer: str
    note: str
    story: RunStory


class Customers:
    """Makes requests of each kind.

    Args:
        client: Knows the shop's address.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._orders: list[str] = []
        self.kinds: tuple[Callable[[], Visit], ...] = (
            self.buys,
            self.is_declined,
            self.wants_no_receipt,
            self.meets_a_busy_provider,
            self.has_paid,
        )

    def buys(self) -> Visit:
        """A checkout that goes well."""
        return self._checkout(payments.GOOD_CARD, "bought")

    def wants_no_receipt(self) -> Visit:
        """A checkout that skips its receipt."""
        skipped = StepStory("skipped", ("skipped",), skip_reason=OPTED_OUT)
        return self._checkout(payments.GOOD_CARD, "bought, wants no receipt", {"send-receipt-email": skipped}, receipt=False)

    def meets_a_busy_provider(self) -> Visit:
        """A checkout whose card can be charged at the second attempt only."""
        charged = StepStory("success", ("error", "success"))
        return self._checkout(payments.BUSY_CARD, "bought, charged at the second attempt", {"charge-card": charged})

    def is_declined(self) -> Visit:
        """A checkout that fails, since the card is declined."""
        declined = StepStory("error", ("error",), error="CardDeclined")
        missing = StepStory("missing", missing_reason="upstream_error")
        steps = {"charge-card": declined, "create-order": missing, "send-receipt-email": missing}
        return self._checkout(payments.DECLINED_CARD, "card declined", steps, status="error")

    def has_paid(self) -> Visit:
        """The payment provider reports that the latest order is paid."""
        delivery = f"evt_{secrets.token_hex(4)}"
        body = json.dumps({"type": "payment.settled", "order": self._orders[-1]}).encode()
        headers = {"X-Delivery-Id": delivery, "X-Signature": payments.sign(body), "Content-Type": "application/json"}
        answer = self._client.post("/webhooks/payment", content=body, headers=headers)
        steps = {key: success() for key in ("verify-signature", "load-order", "apply-payment")}
        return self._visit(
            answer, 200, f"payment of {self._orders[-1]} settled", RunStory("payment-webhook", delivery, "success", steps)
        )

    def _checkout(
        self,
        card: str,
        note: str,
        others: Mapping[str, StepStory] | None = None,
        *,
        status: str = "success",
        receipt: bool = True,
    ) -> Visit:
        request_id = f"req_{secrets.token_hex(4)}"
        cart = {
            "customer": f"c_{secrets.token_hex(2)}",
            "items": {"moka-pot": 1, "espresso-cup": 2},
            "card": card,
            "receipt": receipt,
        }
        answer = self._client.post("/checkout", json=cart, headers={"X-Request-Id": request_id})
        story = RunStory("checkout", request_id, status, checkout_steps(others or {}))
        visit = self._visit(answer, 402 if status == "error" else 201, note, story)
        if answer.status_code == 201:
            self._orders.append(answer.json()["order"])
        return visit

    def _visit(self, answer: httpx.Response, expected: int, note: str, story: RunStory) -> Visit:
        request = f"{answer.request.method} {answer.request.url.path}"
        if answer.status_code != expected:
            raise SurpriseError(f"{request} answered {answer.status_code} where {expected} was expected: {answer.text[:500]}")
        return Visit(request, f"{answer.status_code} {answer.reason_phrase}", note, story)


def checkout_steps(others: Mapping[str, StepStory]) -> dict[str, StepStory]:
    """The steps of a checkout in the order of the flow, each a success save for those given."""
    keys = ("validate-cart", "charge-card", "reserve-stock", "create-order", "send-receipt-email")
    return {key: others.get(key, success()) for key in keys}


def interrupted_checkout(run_id: str) -> RunStory:
    """The checkout of the worker that died while it reserved stock."""
    missing = StepStory("missing", missing_reason="not_yet")
    stuck = StepStory("running", ("running",), stuck=True)
    steps = checkout_steps({"reserve-stock": stuck, "create-order": missing, "send-receipt-email": missing})
    return RunStory("checkout", run_id, "running", steps, stuck=True)
