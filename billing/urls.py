"""Which page over records and money answers which path?"""

from django.urls import path

from billing.views import backtests, keys, policies, prices, requests

urlpatterns = [
    path("requests", requests.list_page, name="requests"),
    path("requests/<uuid:request_id>", requests.show_request, name="request"),
    path("policies", policies.list_policies, name="policies"),
    path("policies/<int:pk>", policies.show_policy, name="policy"),
    path("policies/<int:pk>/backtests", backtests.list_backtests, name="policy-backtests"),
    path("policies/<int:pk>/backtests/start", backtests.start, name="backtest-start"),
    path("backtests/<int:pk>", backtests.show_backtest, name="backtest"),
    path("backtests/<int:pk>/cancel", backtests.cancel, name="backtest-cancel"),
    path("keys", keys.list_keys, name="keys"),
    path("keys/<int:pk>", keys.show_key, name="key"),
    path("deployments/<int:pk>/prices/new", prices.add_price, name="price-new"),
]
