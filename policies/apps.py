"""The Django app of what an operator configures."""

from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "policies"
    verbose_name = "Routing"
    default_auto_field = "django.db.models.BigAutoField"
