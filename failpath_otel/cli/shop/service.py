"""The shop: checkouts and payment webhooks over HTTP, each a run with its steps."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from failpath_otel import FailpathClient, Run
from failpath_otel.cli.shop import payments


class Cart(BaseModel):
    """What a customer wants to buy."""

    customer: str
    items: dict[str, int]
    card: str
    receipt: bool = True


class Shop:
    """The shop's business: prices, stock and orders, all in memory."""

    prices_cents = {"espresso-cup": 1400, "moka-pot": 3900, "grinder": 12900}  # noqa: RUF012 - never changed

    def __init__(self, failpath: FailpathClient, provider: httpx.AsyncClient) -> None:
        self._failpath = failpath
        self._provider = provider
        self._orders: dict[str, dict[str, Any]] = {}

    async def checkout(self, request_id: str, cart: Cart) -> dict[str, Any]:
        """One checkout, a run of the flow ``checkout``. Payment and stock are seen to at the same time, as in the flow."""
        run = self._failpath.run("checkout", run_id=request_id, metadata={"customer": cart.customer})
        total = run.step("validate-cart", lambda: self._validate(cart), metadata={"items": sum(cart.items.values())})
        paid, stock = await asyncio.gather(self._pay(run, cart, total), self._reserve(run, cart), return_exceptions=True)
        for outcome in (paid, stock):
            if isinstance(outcome, BaseException):
                raise outcome
        order = run.step("create-order", lambda: self._create(request_id, cart, total))
        if cart.receipt:
            await run.step("send-receipt-email", lambda: asyncio.sleep(0.01), metadata={"template": "receipt-v2"})
        else:
            run.skip("send-receipt-email", reason="the customer opted out of e-mail")
        return order

    async def payment_webhook(self, delivery: str, body: bytes, signature: str) -> dict[str, Any]:
        """What the payment provider reports later, a run of the flow ``payment-webhook``."""
        run = self._failpath.run("payment-webhook", run_id=delivery)
        with run.step("verify-signature"):
            if not hmac.compare_digest(signature, payments.sign(body)):
                raise HTTPException(401, "the signature does not fit the body")
        report = json.loads(body)
        with run.step("load-order", metadata={"order": report["order"]}):
            await asyncio.sleep(0.004)
            order = self._orders[report["order"]]
        with run.step("apply-payment") as step:
            await asyncio.sleep(0.006)
            order["paid"] = True
            step.set_metadata(amount_cents=order["amount_cents"])
        return order

    def _validate(self, cart: Cart) -> int:
        return sum(self.prices_cents[item] * count for item, count in cart.items.items())

    async def _pay(self, run: Run[str], cart: Cart, total: int) -> str:
        for tries_left in (1, 0):
            try:
                async with run.step("charge-card", metadata={"amount_cents": total}) as step:
                    charge_id = await payments.charge(self._provider, cart.card, total, run.run_id)
                    step.set_metadata(charge_id=charge_id)
                    return charge_id
            except payments.GatewayUnavailable:  # noqa: PERF203 - a second attempt is what the loop is for
                if not tries_left:
                    raise
        raise AssertionError

    async def _reserve(self, run: Run[str], cart: Cart) -> None:
        async with run.step("reserve-stock", metadata={"warehouse": "north"}):
            await asyncio.sleep(0.01 * len(cart.items))

    def _create(self, request_id: str, cart: Cart, total: int) -> dict[str, Any]:
        order_id = f"order-{len(self._orders) + 1}"
        self._orders[order_id] = {"order": order_id, "request": request_id, "customer": cart.customer, "amount_cents": total}
        return self._orders[order_id]


def create_app(failpath: FailpathClient, address: str, close: Callable[[], None]) -> FastAPI:
    """The shop's routes.

    Args:
        failpath: Takes the steps.
        address: Base URL of this service, under which the payment provider is found too.
        close: Called when the service ends. On SIGTERM uvicorn ends the process by that signal, and nothing runs at exit.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with httpx.AsyncClient(base_url=address, timeout=5, trust_env=False) as provider:
            app.state.shop = Shop(failpath, provider)
            yield
            await asyncio.to_thread(close)

    app = FastAPI(title="Demo shop", lifespan=lifespan)
    app.include_router(payments.gateway())
    app.add_api_route("/checkout", _checkout, methods=["POST"], status_code=201)
    app.add_api_route("/webhooks/payment", _webhook, methods=["POST"])
    app.add_exception_handler(payments.CardDeclined, _declined)
    return app


async def _checkout(cart: Cart, request: Request, x_request_id: Annotated[str, Header()]) -> dict[str, Any]:
    shop: Shop = request.app.state.shop
    return await shop.checkout(x_request_id, cart)


async def _webhook(
    request: Request, x_delivery_id: Annotated[str, Header()], x_signature: Annotated[str, Header()]
) -> dict[str, Any]:
    shop: Shop = request.app.state.shop
    return await shop.payment_webhook(x_delivery_id, await request.body(), x_signature)


async def _declined(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"card declined: {error}"}, status_code=402)
