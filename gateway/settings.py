"""How is this installation configured? Environment variables only; README lists them.

Reads: environment, DATA_DIR/secrets.json, the embedded PostgreSQL's socket when DATABASE_URL is not set.
"""

from __future__ import annotations

import os
from pathlib import Path

import environ

from gateway.embedded import socket_directory
from gateway.environment_values import database_settings, mail_settings, origins, whole_number
from gateway.secrets_file import load_or_create_secrets

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

POINTSMAN_DATA_DIR = Path(env.str("POINTSMAN_DATA_DIR", str(BASE_DIR / "data"))).resolve()
POINTSMAN_HOST = env.str("POINTSMAN_HOST", "127.0.0.1")
POINTSMAN_PORT = whole_number("POINTSMAN_PORT", 8000, least=1, most=65_535)
POINTSMAN_WORKERS = whole_number("POINTSMAN_WORKERS", 1, most=256)
POINTSMAN_DEMO = env.bool("POINTSMAN_DEMO", True)
POINTSMAN_DEMO_WEEK = env.bool("POINTSMAN_DEMO_WEEK", True)
POINTSMAN_CONFIG = env.str("POINTSMAN_CONFIG", "")
# Where background work reaches the endpoint; with a wildcard address that is this machine.
_own_host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(POINTSMAN_HOST, POINTSMAN_HOST)  # noqa: S104
POINTSMAN_GATEWAY_URL = env.str("POINTSMAN_GATEWAY_URL", f"http://{_own_host}:{POINTSMAN_PORT}")
# Whose pages may call the endpoint from a browser; nobody's by default.
POINTSMAN_CORS_ORIGINS = origins("POINTSMAN_CORS_ORIGINS")
# Months of request records to keep besides the current one; 0 keeps all.
POINTSMAN_KEEP_MONTHS = whole_number("POINTSMAN_KEEP_MONTHS", 0, most=1200)
POINTSMAN_PUBLIC_URL = env.str("POINTSMAN_PUBLIC_URL", f"http://{POINTSMAN_HOST}:{POINTSMAN_PORT}")

# An empty variable, as compose files make of one that is not set, is none: an empty secret would open every door.
_secrets = load_or_create_secrets(POINTSMAN_DATA_DIR)
SECRET_KEY = env.str("POINTSMAN_SECRET_KEY", "") or _secrets["secret_key"]
# Keys of before: what they signed is still believed, so a new key signs nobody out.
SECRET_KEY_FALLBACKS = env.list("POINTSMAN_SECRET_KEY_FALLBACKS", default=[])
POINTSMAN_KEY_PEPPER = env.str("POINTSMAN_KEY_PEPPER", "") or _secrets["pepper"]
POINTSMAN_CREDENTIAL_KEYS = (env.str("POINTSMAN_CREDENTIAL_KEYS", "") or _secrets["credential_keys"]).split(
    ","
)
POINTSMAN_METRICS_TOKEN = env.str("POINTSMAN_METRICS_TOKEN", "") or _secrets["metrics_token"]

DEBUG = env.bool("POINTSMAN_DEBUG", False)
ALLOWED_HOSTS = env.list("POINTSMAN_ALLOWED_HOSTS", default=["*"])
CSRF_TRUSTED_ORIGINS = env.list("POINTSMAN_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "gateway.apps.GatewayConfig",
    "billing.apps.BillingConfig",
    "policies.apps.PoliciesConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway.security_headers.SecurityHeadersMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "gateway.urls"
ASGI_APPLICATION = "gateway.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "gateway.navigation.navigation",
            ],
        },
    },
]

if os.environ.get("DATABASE_URL"):
    _database = database_settings("DATABASE_URL")
else:
    # The embedded server listens on a socket file in its data directory; `manage.py up` starts it.
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "pointsman",
        "USER": "postgres",
        "HOST": str(socket_directory(POINTSMAN_DATA_DIR)),
        "PORT": "5432",
    }
DATABASES = {
    "default": {
        **_database,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {**_database.get("OPTIONS", {}), "connect_timeout": 5},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = whole_number("POINTSMAN_SESSION_HOURS", 14 * 24, least=1, most=100_000) * 3600
_is_https = env.bool("POINTSMAN_HTTPS", env.bool("POINTSMAN_HTTPS_ONLY", False))  # the latter is its old name
_is_behind_proxy = env.bool("POINTSMAN_BEHIND_PROXY", False)
SESSION_COOKIE_SECURE = _is_https
CSRF_COOKIE_SECURE = _is_https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _is_behind_proxy else None
# Only a proxy that says so lets us tell https from http: without its word every page would lead to itself.
SECURE_SSL_REDIRECT = _is_https and _is_behind_proxy
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # Prometheus asks the worker itself.
# Thirty days: whoever comes once a month is covered, and a mistake is over in a month.
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if _is_https else 0
# Not for us to say about other hosts below this name (W005), nor to put it on the browsers' lists for good (W021).
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = POINTSMAN_DATA_DIR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns when it is missing.
# Serve straight from the source folders: `make run` needs no collectstatic step, and file names carry versions.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# The rest of the management API's settings stand in policies/api/resources.py, at the view that all of it extends.
REST_FRAMEWORK = {
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "policies.api.schema.ManagementSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Pointsman management API",
    "DESCRIPTION": (
        "Reads and changes the configuration, with the same rules as the console and the configuration file. Changes "
        "are live in every worker within 2 s and stand in the audit log as `token:NAME`. Refusals are problems "
        "(RFC 9457). Lists are read page by page: follow `next`. The endpoint for LLM requests is /v1, not this API."
    ),
    "VERSION": "1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SORT_OPERATIONS": False,
    "ENUM_NAME_OVERRIDES": {"EndpointEnum": "policies.cataloguing.ENDPOINTS"},
    "LICENSE": {"name": "Apache-2.0"},
}

_celery_folder = POINTSMAN_DATA_DIR / "celery"
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", "filesystem://localhost")
if CELERY_BROKER_URL.startswith("filesystem://"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_celery_folder / "queue"),
        "data_folder_out": str(_celery_folder / "queue"),
        "control_folder": str(_celery_folder / "control"),
    }
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE = {
    "verify-recent-hourly": {"task": "billing.tasks.verify_recent", "schedule": 3600.0},
    "verify-usage-daily": {"task": "billing.tasks.verify_usage", "schedule": 86400.0},
    "sum-meters": {"task": "billing.tasks.sum_meters", "schedule": 900.0},
    "sum-label-days": {"task": "billing.tasks.sum_label_days", "schedule": 600.0},
    "run-unfinished-closings": {"task": "gateway.tasks.run_unfinished_closings", "schedule": 30.0},
    "run-unfinished-backtests": {"task": "gateway.tasks.run_unfinished_backtests", "schedule": 30.0},
    "run-unfinished-exports": {"task": "gateway.tasks.run_unfinished_exports", "schedule": 30.0},
    "delete-expired-exports": {"task": "gateway.tasks.delete_expired_exports", "schedule": 3600.0},
    "send-due-mails": {"task": "gateway.tasks.send_due_mails", "schedule": 60.0},
    "resume-evaluations": {"task": "billing.tasks.resume_evaluations", "schedule": 60.0},
    "collect-evidence": {"task": "billing.tasks.collect_evidence", "schedule": 30.0},
    "expire-credit-hourly": {"task": "billing.tasks.expire_credit", "schedule": 3600.0},
    "notice-budgets": {"task": "gateway.tasks.notice_budgets", "schedule": 60.0},
    "forget-deliveries-daily": {"task": "gateway.tasks.forget_deliveries", "schedule": 86400.0},
    "learn-router-daily": {"task": "billing.tasks.learn_router", "schedule": 86400.0},
    "prune-records-daily": {"task": "billing.tasks.prune_records", "schedule": 86400.0},
    "prepare-partitions-daily": {"task": "billing.tasks.prepare_partitions", "schedule": 86400.0},
}

# smtp+tls://USER:PASSWORD@HOST:587; without it mails stand in the log of the background process.
POINTSMAN_MAIL_IS_SET_UP = bool(env.str("EMAIL_URL", ""))
vars().update(mail_settings("EMAIL_URL"))
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "") or "pointsman@localhost"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("POINTSMAN_LOG_LEVEL", "INFO")},
    # They tell every URL that is called, and the path of a webhook may be its secret.
    "loggers": {"httpx": {"level": "WARNING"}, "httpcore": {"level": "WARNING"}},
}
