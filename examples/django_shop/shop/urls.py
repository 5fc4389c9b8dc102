"""Where the views are found."""

from django.urls import path

from . import views

urlpatterns = [path("checkout", views.checkout), path("stock", views.stock)]
