"""The steps of a checkout. Each belongs to the run of the request that is being served."""

from django.core.mail import send_mail
from django.db.models import F

from failpath_otel import FailpathClient

from .models import Article, Order

failpath = FailpathClient()


class OutOfStock(Exception):
    pass


class CardDeclined(Exception):
    pass


@failpath.step("validate-cart")
def validate(name: str, count: int) -> Article:
    if count < 1:
        raise ValueError(f"{count} of {name!r} cannot be bought")
    return Article.objects.get(name=name)


@failpath.step("reserve-stock")
def reserve(article: Article, count: int) -> None:
    enough = Article.objects.filter(pk=article.pk, in_stock__gte=count)
    if not enough.update(in_stock=F("in_stock") - count):
        raise OutOfStock(f"{count} wanted, {article.in_stock} there")


@failpath.step("charge-card")
def charge(card: str, amount: int) -> None:
    if card == "tok_declined":
        raise CardDeclined(f"{amount} refused")


@failpath.step("create-order")
def create(article: Article, count: int) -> Order:
    return Order.objects.create(article=article, count=count)


@failpath.step("send-receipt-email")
def send_receipt(order: Order, address: str) -> None:
    send_mail(f"Order {order.pk}", str(order), "shop@example.org", [address])
