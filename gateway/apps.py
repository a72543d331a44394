"""The Django app of the code that runs between configuration and records; it owns no tables."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        from gateway import checks  # noqa: F401  (registers the system checks)
