"""What the shop keeps."""

from django.db import models


class Article(models.Model):
    name = models.CharField(max_length=80, unique=True)
    price = models.PositiveIntegerField()
    in_stock = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    article = models.ForeignKey(Article, on_delete=models.PROTECT)
    count = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.count} x {self.article}"
