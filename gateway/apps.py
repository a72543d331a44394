"""The Django app of the code that runs between configuration and records; it owns no tables."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"
