"""The Django app of the code that runs between configuration and records; it owns no tables."""

from importlib import import_module

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        """Make our Celery application the one that `shared_task` and `current_app` mean, in every process.

        Without it a page that asks for a task would look for a broker of Celery's own defaults.
        """
        import_module("gateway.celery")
