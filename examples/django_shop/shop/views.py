"""The views know nothing of runs."""

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from . import steps
from .models import Article


@require_POST
def checkout(request: HttpRequest) -> JsonResponse:
    cart = json.loads(request.body)
    try:
        with transaction.atomic():
            article = steps.validate(cart["article"], cart["count"])
            steps.reserve(article, cart["count"])
            steps.charge(cart["card"], article.price * cart["count"])
            order = steps.create(article, cart["count"])
    except (steps.OutOfStock, steps.CardDeclined) as error:
        return JsonResponse({"reason": str(error)}, status=409)
    steps.send_receipt(order, cart["email"])
    return JsonResponse({"order": order.pk}, status=201)


def stock(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(dict(Article.objects.values_list("name", "in_stock")))
