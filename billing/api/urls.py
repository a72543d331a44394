"""Which resource over records and money answers which path below /api/v1?"""

from django.urls import path

from billing.api import prices

urlpatterns = [
    path("prices", prices.PricesView.as_view(), name="prices"),
    path("prices/<int:pk>", prices.PriceView.as_view(), name="price"),
]
