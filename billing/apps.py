"""The Django app of what traffic recorded and what it cost."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Traffic and money"
    default_auto_field = "django.db.models.BigAutoField"
