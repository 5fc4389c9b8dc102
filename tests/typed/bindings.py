"""What type checkers make of runs with generated flows; `shop_flows.py` is what `failpath-otel generate` makes of them."""

from __future__ import annotations

from typing import Any, Literal

import shop_flows as flows
from typing_extensions import assert_type

from failpath_otel import FailpathClient, FlowKey, Run

client = FailpathClient(exporter="memory")

run = client.run(flows.checkout, run_id=123, metadata={"route": "/checkout"})
assert_type(run, Run[flows.CheckoutStep])
assert_type(client.run("checkout"), Run[str])
assert_type(run.step("chargeCard", lambda: 1), int)
assert_type(run.step(flows.checkout.charge_card, lambda: 1), int)
run.step("支付")
run.step('say "it\'s"\t\u202e')
run.skip(flows.checkout.send_receipt_12f9a3, reason="opted out")

run.step("chrage-card", lambda: 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
run.step("charge-card")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
run.skip("apply-payment")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
run.skip(flows.billing_payment_webhook.apply_payment)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
client.run(flows.chekcout)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
client.run(flows.checkout.slug)


@client.step(flows.checkout.charge_card)
def charge() -> None:
    """A key by its name, whose typing error is one."""


@client.step(flows.checkout.chrage_card)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUntypedFunctionDecorator]
def charge_wrongly() -> None:
    """A name that does not exist."""


with client.run(flows.checkout) as entered:
    assert_type(entered, Run[flows.CheckoutStep])


async def in_async_code() -> None:
    """The asynchronous block gives the same."""
    async with client.run(flows.checkout) as later:
        assert_type(later, Run[flows.CheckoutStep])


client.record_step(flow_key=flows.checkout, run_id="1", step_key="chargeCard", status="success")
client.record_step(flow_key="checkout", run_id="1", step_key="any", status="success")
client.record_step(flow_key=flows.checkout, run_id="1", step_key="chrage", status="success")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

# A flow that declares no step has no right key.
client.run(flows.not_drawn_yet).skip("any")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def charges(run: Run[Literal["chargeCard"]]) -> None:
    """Takes every run in which this one step is known."""
    run.skip("chargeCard")


def any_run(run: Run[Any]) -> None:
    """Takes every run."""


charges(run)
webhook = client.run(flows.billing_payment_webhook)
charges(webhook)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plain = client.run("checkout")
charges(plain)
any_run(run)
key: FlowKey[flows.CheckoutStep] = flows.checkout
