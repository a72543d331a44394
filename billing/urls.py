"""Which page over records and money answers which path?"""

from django.urls import path

from billing.views import backtests, evaluation, keys, policies, prices, requests, router, spend, spend_keys

urlpatterns = [
    path("requests", requests.list_page, name="requests"),
    path("requests/<uuid:request_id>", requests.show_request, name="request"),
    path("policies", policies.list_policies, name="policies"),
    path("policies/<int:pk>", policies.show_policy, name="policy"),
    path("policies/<int:pk>/traffic", policies.show_traffic, name="policy-traffic"),
    path("policies/<int:pk>/backtests", backtests.list_backtests, name="policy-backtests"),
    path("policies/<int:pk>/backtests/start", backtests.start, name="backtest-start"),
    path("backtests/<int:pk>", backtests.show_backtest, name="backtest"),
    path("backtests/<int:pk>/cancel", backtests.cancel, name="backtest-cancel"),
    path("router/evaluations", evaluation.list_sets, name="evaluations"),
    path("router/evaluations/new", evaluation.create_set, name="evaluation-new"),
    path("router/evaluations/<int:pk>", evaluation.show_set, name="evaluation"),
    path("router/evaluations/<int:pk>/run", evaluation.start_run, name="evaluation-start"),
    path("router/evaluations/<int:pk>/delete", evaluation.delete_set, name="evaluation-delete"),
    path("router/evaluations/runs/<int:pk>", evaluation.show_run, name="evaluation-run"),
    path("router/evaluations/runs/<int:pk>/cancel", evaluation.cancel_run, name="evaluation-cancel"),
    path("keys", keys.list_keys, name="keys"),
    path("keys/<int:pk>", keys.show_key, name="key"),
    path("deployments/<int:pk>/prices/new", prices.add_price, name="price-new"),
    path("spend", spend.show_spend, name="spend"),
    path("spend/export.<str:file_format>", spend.export_spend, name="spend-export"),
    path("spend/keys", spend_keys.show_key_spend, name="spend-keys"),
    path("spend/keys/export.<str:file_format>", spend_keys.export_key_spend, name="spend-keys-export"),
    path("router", router.show_router, name="router"),
    path("router/learn", router.learn_now, name="router-learn"),
    path("router/setting", router.change_setting, name="router-setting"),
    path("router/workloads/<str:workload>", router.show_workload, name="workload"),
    path("router/workloads/<str:workload>/pin", router.pin_workload, name="workload-pin"),
    path("router/tables/<int:pk>", router.show_table, name="router-table"),
    path("router/tables/<int:pk>/activate", router.activate_table, name="router-table-activate"),
    path("router/tables/<int:pk>/reject", router.reject_table, name="router-table-reject"),
    path("router/tables/<int:pk>/roll-back", router.roll_back, name="router-table-back"),
]
