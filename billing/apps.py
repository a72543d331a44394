"""The Django app of what traffic recorded and what it cost."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Traffic and money"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the checks of policy drafts which deployments have a price, and the catalog which ones stay in place."""
        from billing.pricing import list_priced_deployments
        from billing.sale_terms import why_not_moved
        from policies.cataloguing import register_move_check
        from policies.draft_checks import register_price_reader

        register_price_reader(list_priced_deployments)
        register_move_check(why_not_moved)
