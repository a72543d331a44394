"""Which resource over records and money answers which path below /api/v1?"""

from django.urls import path

from billing.api import backtests, billing_profiles, budgets, credits, exports, prices, sale_terms, statements

urlpatterns = [
    path("budgets", budgets.BudgetsView.as_view(), name="budgets"),
    path("budgets/<int:pk>", budgets.BudgetView.as_view(), name="budget"),
    path("budgets/<int:pk>/windows", budgets.BudgetWindowsView.as_view(), name="budget-windows"),
    path("budgets/<int:pk>/leases", budgets.BudgetLeasesView.as_view(), name="budget-leases"),
    path("prices", prices.PricesView.as_view(), name="prices"),
    path("sale-terms", sale_terms.SaleTermsView.as_view(), name="sale-terms"),
    path("sale-terms/<int:pk>", sale_terms.SaleTermView.as_view(), name="sale-term"),
    path("policies/<int:pk>/backtests", backtests.BacktestsView.as_view(), name="policy-backtests"),
    path("backtests/<int:pk>", backtests.BacktestView.as_view(), name="backtest"),
    path("backtests/<int:pk>/cancel", backtests.BacktestCancellationView.as_view(), name="backtest-cancel"),
    path("statements", statements.StatementsView.as_view(), name="statements"),
    path("statements/<int:pk>", statements.StatementView.as_view(), name="statement"),
    path("statements/<int:pk>/review", statements.StatementReviewView.as_view(), name="statement-review"),
    path("statements/<int:pk>/issue", statements.StatementIssueView.as_view(), name="statement-issue"),
    path("statements/<int:pk>/pay", statements.StatementPaymentView.as_view(), name="statement-pay"),
    path("statements/<int:pk>/void", statements.StatementVoidView.as_view(), name="statement-void"),
    path("statements/<int:pk>/credit-notes", statements.CreditNotesView.as_view(), name="credit-notes"),
    path("closings", statements.ClosingsView.as_view(), name="closings"),
    path("closings/preview", statements.ClosingPreviewView.as_view(), name="closing-preview"),
    path("closings/<int:pk>", statements.ClosingView.as_view(), name="closing"),
    path("exports", exports.ExportsView.as_view(), name="exports"),
    path("exports/<int:pk>", exports.ExportView.as_view(), name="export"),
    path("exports/<int:pk>/cancel", exports.ExportCancellationView.as_view(), name="export-cancel"),
    path("exports/<int:pk>/file", exports.ExportFileView.as_view(), name="export-file"),
    path("prices/<int:pk>", prices.PriceView.as_view(), name="price"),
    path("credits", credits.CreditsView.as_view(), name="credits"),
    path("credits/<int:pk>", credits.CreditView.as_view(), name="credit"),
    path("credits/<int:pk>/refund", credits.CreditRefundView.as_view(), name="credit-refund"),
    path("credits/<int:pk>/end", credits.CreditEndView.as_view(), name="credit-end"),
    path("tenants/<int:pk>/billing", billing_profiles.BillingProfileView.as_view(), name="billing-profile"),
    path("issuer", billing_profiles.IssuerView.as_view(), name="issuer"),
    path("exchange-rates", billing_profiles.ExchangeRatesView.as_view(), name="exchange-rates"),
    path("exchange-rates/<int:pk>", billing_profiles.ExchangeRateView.as_view(), name="exchange-rate"),
]
