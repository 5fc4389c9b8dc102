# Made by `failpath-otel generate` from flows.json. Do not edit: change that file and run the command again.
# fmt: off
# ruff: noqa: A001, D400, D403, D415, E501, INP001, PLC2401, RUF001, RUF002, RUF100, UP040
"""The flows that flows.json declares, and the keys of their steps."""

from typing import Final, Literal, NoReturn, TypeAlias

from failpath_otel import FlowKey

CheckoutStep: TypeAlias = Literal[
    "validate-cart",
    "chargeCard",
    "orders/v2.create",
    "3d-secure",
    "send receipt",
    "send-receipt",
    "class",
    "slug",
    "支付",
    "🙂",
    'say "it\'s"\t\u202e',
]
"""The step keys of Checkout."""


class CheckoutFlow(FlowKey[CheckoutStep]):
    """Checkout"""

    __slots__ = ()

    validate_cart: Final = "validate-cart"
    """Validate Cart"""

    charge_card: Final = "chargeCard"
    """Charge "Card\""""

    orders_v2_create: Final = "orders/v2.create"
    """orders/v2.create"""

    step_3d_secure: Final = "3d-secure"
    """3-D Secure"""

    send_receipt_4ce553: Final = "send receipt"
    """send receipt"""

    send_receipt_12f9a3: Final = "send-receipt"
    """Send receipt, by \\ mail"""

    class_: Final = "class"
    """class"""

    slug_: Final = "slug"
    """slug"""

    支付: Final = "支付"
    """支付"""

    step: Final = "🙂"
    """🙂"""

    say_it_s: Final = 'say "it\'s"\t\u202e'
    """say "it's" \u202e"""


checkout: Final = CheckoutFlow("checkout")
"""Checkout"""


BillingPaymentWebhookStep: TypeAlias = Literal[
    "apply-payment",
]
"""The step keys of Payment webhook."""


class BillingPaymentWebhookFlow(FlowKey[BillingPaymentWebhookStep]):
    """Payment webhook"""

    __slots__ = ()

    apply_payment: Final = "apply-payment"
    """apply-payment"""


billing_payment_webhook: Final = BillingPaymentWebhookFlow("billing/Payment Webhook")
"""Payment webhook"""


NotDrawnYetStep: TypeAlias = NoReturn
"""The step keys of not-drawn-yet."""


class NotDrawnYetFlow(FlowKey[NotDrawnYetStep]):
    """not-drawn-yet"""

    __slots__ = ()


not_drawn_yet: Final = NotDrawnYetFlow("not-drawn-yet")
"""not-drawn-yet"""
