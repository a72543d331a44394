"""Which resource over records and money answers which path below /api/v1?"""

from django.urls import path

from billing.api import backtests, prices

urlpatterns = [
    path("prices", prices.PricesView.as_view(), name="prices"),
    path("policies/<int:pk>/backtests", backtests.BacktestsView.as_view(), name="policy-backtests"),
    path("backtests/<int:pk>", backtests.BacktestView.as_view(), name="backtest"),
    path("backtests/<int:pk>/cancel", backtests.BacktestCancellationView.as_view(), name="backtest-cancel"),
    path("prices/<int:pk>", prices.PriceView.as_view(), name="price"),
]
