"""Settings, from the environment alone; `.env.example` names and explains every variable.

A secret has no default: a half-configured server does not start.
"""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import environ
from celery.schedules import crontab
from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from redis.backoff import NoBackoff
from redis.retry import Retry

from fintech_core.currencies import TWO_DECIMAL_CURRENCIES
from fintech_core.environment import Environment
from fintech_core.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent

environ.Env.read_env(BASE_DIR / ".env")  # for laptops; the real environment wins
env = Environment()

# --- Core ------------------------------------------------------------------------------------
SECRET_KEY = env.secret("SECRET_KEY", min_length=50)
JWT_SIGNING_KEY = env.secret("JWT_SIGNING_KEY", min_length=32)
if JWT_SIGNING_KEY == SECRET_KEY:
    raise ImproperlyConfigured("JWT_SIGNING_KEY must differ from SECRET_KEY.")
# The first encrypts, all of them decrypt, so that keys can be rotated.
FIELD_ENCRYPTION_KEYS = env.fernet_keys("FIELD_ENCRYPTION_KEYS")
# The first signs the ledger's checkpoints, all of them are trusted, so that keys can be rotated.
LEDGER_SIGNING_KEYS = env.ed25519_seeds("LEDGER_SIGNING_KEY")
DEBUG = env.flag("DEBUG", default=False)
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS")
PORT = env.count("PORT", default=8000)
PUBLIC_BASE_URL = env.base_url("PUBLIC_BASE_URL", default=f"http://localhost:{PORT}")
IS_HTTPS = PUBLIC_BASE_URL.startswith("https://")
DEFAULT_EXCEPTION_REPORTER_FILTER = "fintech_core.exceptions.SettingsFilter"

ROOT_URLCONF = "fintech_core.urls"
WSGI_APPLICATION = "fintech_core.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "users.User"
# A POST to a path without its slash would be redirected as a GET, and lose its body.
APPEND_SLASH = False

INSTALLED_APPS = [
    "fintech_core",
    "users",
    "wallet",
    "transactions",
    "payments",
    "unfold.apps.BasicAppConfig",  # its default would replace our admin site by its own
    "unfold.contrib.filters",
    "fintech_core.apps.OperationsAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
    "csp",
    "django_prometheus",
]

MIDDLEWARE = [
    "fintech_core.middleware.RequestIdMiddleware",
    "fintech_core.middleware.RequestLogMiddleware",
    "fintech_core.metrics.MetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "fintech_core.middleware.PageSessionMiddleware",
    "fintech_core.middleware.OriginMiddleware",
    "fintech_core.middleware.PageCSPMiddleware",
    "fintech_core.middleware.DataMiddleware",
    "fintech_core.middleware.BodyLimitMiddleware",
    "fintech_core.middleware.EncodingMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "fintech_core.middleware.PageAuthenticationMiddleware",
    "fintech_core.middleware.PageMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- PostgreSQL --------------------------------------------------------------------------------
# `default` serves; `owner` migrates and owns the tables. A serving role that owns nothing can
# neither disable a trigger nor truncate the ledger.
# Every statement in our functions is a look-up by keys: one plan fits all, made once a session.
_SERVING_LIMITS = (
    "-c lock_timeout=4000 -c statement_timeout=15000 -c idle_in_transaction_session_timeout=30000 "
    "-c plan_cache_mode=force_generic_plan"
)

# A server, or the way to it, that is gone without a word: TCP alone would wait a quarter of an hour
# for it. Seconds, but for the milliseconds of the first.
_NOTICED_AS_GONE = {
    "tcp_user_timeout": 5000,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}

# A server that stands still while its machine goes on. Longer than statement_timeout, for what is
# merely slow PostgreSQL ends itself, and the connection lives on.
DATABASE_PATIENCE_SECONDS = 20.0


def database(url: str, *, session: str) -> dict[str, Any]:
    config: dict[str, Any] = env.db_url_config(url)
    config["ENGINE"] = "fintech_core.postgresql"
    config.setdefault("CONN_MAX_AGE", 600)
    config.setdefault("CONN_HEALTH_CHECKS", True)
    options = config.setdefault("OPTIONS", {})
    options.setdefault("connect_timeout", 2)
    options.setdefault("options", session)
    for name, value in _NOTICED_AS_GONE.items():
        options.setdefault(name, value)
    return config


# A small name is no setting: addresses hold passwords, and pages for debugging show settings.
serving_url = env.str("DATABASE_URL")
DATABASES = {
    "default": database(serving_url, session=_SERVING_LIMITS),
    "owner": database(
        env.str("DATABASE_OWNER_URL", default=serving_url), session="-c lock_timeout=5000"
    ),
}

# --- Redis: rate limits and the queue, never the truth -----------------------------------------
CELERY_BROKER_URL = env.str("REDIS_URL")
_REDIS_SECONDS = 1.0  # a request must not hang on a cache
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": CELERY_BROKER_URL,
        "KEY_PREFIX": "fintech",
        "OPTIONS": {
            # Not pickle: who can write to Redis must not thereby run code here.
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_CONNECT_TIMEOUT": _REDIS_SECONDS,
            "SOCKET_TIMEOUT": _REDIS_SECONDS,
            "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 1)},
        },
    }
}
# Its default; unless it is stated, each request asks for it in vain, which takes longer.
DJANGO_REDIS_CLOSE_CONNECTION = False

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Longer than any task may run, or a task still running would be handed out again.
    "visibility_timeout": 600,
    "socket_connect_timeout": _REDIS_SECONDS,
    "socket_timeout": 5.0,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
    "global_keyprefix": "fintech:",
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 300
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_PUBLISH_RETRY = False  # the inbox sweeper is the retry
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE = {
    "sweep-webhook-events": {
        "task": "payments.sweep_webhook_events",
        "schedule": 15.0,
        "options": {"expires": 15},
    },
    "deliver-due-sandbox-events": {
        "task": "payments.deliver_due_sandbox_events",
        "schedule": 15.0,
        "options": {"expires": 15},
    },
    "expire-payment-intents": {"task": "payments.expire_payment_intents", "schedule": 60.0},
    "poll-gateways": {
        "task": "payments.poll_gateways",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "sweep-refunds": {
        "task": "payments.sweep_refunds",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    # Again each hour for what failed. Gateways need a while after midnight for their reports.
    "reconcile-gateways": {
        "task": "payments.reconcile_gateways",
        "schedule": crontab(minute=20, hour="4-23"),
        "options": {"expires": 3000},
    },
    "cleanup-old-webhook-events": {
        "task": "payments.cleanup_old_webhook_events",
        "schedule": timedelta(hours=1),
    },
    "expire-holds": {
        "task": "transactions.expire_holds",
        "schedule": 15.0,
        "options": {"expires": 15},
    },
    "checkpoint-ledger": {
        "task": "transactions.checkpoint_ledger",
        "schedule": timedelta(minutes=5),
        "options": {"expires": 300},
    },
    "deliver-webhooks": {
        "task": "fintech_core.deliver_webhooks",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "delete-old-deliveries": {
        "task": "fintech_core.delete_old_deliveries",
        "schedule": timedelta(hours=1),
    },
    "delete-old-debits": {"task": "wallet.delete_old_debits", "schedule": timedelta(hours=1)},
    "delete-dead-sessions": {"task": "users.delete_dead_sessions", "schedule": timedelta(hours=1)},
    "delete-old-counters": {
        "task": "fintech_core.delete_old_counters",
        "schedule": timedelta(hours=1),
    },
}

# --- Sign-in -----------------------------------------------------------------------------------
PASSWORD_HASHERS = ["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in [
        (
            "UserAttributeSimilarityValidator",
            {"user_attributes": ["email", "first_name", "last_name", "phone_number"]},
        ),
        ("MinimumLengthValidator", {"min_length": 10}),
        ("CommonPasswordValidator", {}),
        ("NumericPasswordValidator", {}),
    ]
]
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": JWT_SIGNING_KEY,
    "ISSUER": "fintech-core",
    "AUDIENCE": "fintech-core-api",
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "USER_ID_CLAIM": "sub",
    "UPDATE_LAST_LOGIN": False,
}
# Signing in to the admin with an address to return to that is not ours leads here.
LOGIN_REDIRECT_URL = "/admin/"
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 8 * 60 * 60  # staff sign in each working day
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True

# --- HTTP --------------------------------------------------------------------------------------
TRUSTED_PROXY_COUNT = env.count("TRUSTED_PROXY_COUNT", default=0)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXY_COUNT else None
SECURE_SSL_REDIRECT = IS_HTTPS
# Probes and scrapers reach the container directly, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^api/health/", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = IS_HTTPS
SECURE_HSTS_PRELOAD = IS_HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = IS_HTTPS
CSRF_COOKIE_SECURE = IS_HTTPS
CSRF_TRUSTED_ORIGINS = [PUBLIC_BASE_URL]
X_FRAME_OPTIONS = "DENY"
CORS_ALLOWED_ORIGINS = env.names("CORS_ALLOWED_ORIGINS")
CORS_ALLOW_HEADERS = ["authorization", "content-type", "idempotency-key", "x-request-id"]
CORS_EXPOSE_HEADERS = ["X-Request-ID", "Idempotent-Replayed", "Retry-After"]
# Answers of the API are data: a browser that is made to show one as a page loads and runs nothing.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "base-uri": [NONE],
        "form-action": [NONE],
        "frame-ancestors": [NONE],
    }
}
_PAGE_SECURITY = {
    "default-src": [NONE],
    "script-src": [SELF],
    # Both set styles from their scripts.
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
    "font-src": [SELF],
    "connect-src": [SELF],
    "base-uri": [NONE],
    "form-action": [SELF],
    "frame-ancestors": [NONE],
}
DOCS_CONTENT_SECURITY = _PAGE_SECURITY
# Alpine.js, which the admin's theme is built on, evaluates its attributes.
ADMIN_CONTENT_SECURITY = _PAGE_SECURITY | {"script-src": [SELF, UNSAFE_EVAL]}

# The sandbox's pages have one stylesheet, a form, and no script.
SANDBOX_CONTENT_SECURITY = {
    "default-src": [NONE],
    "style-src": [SELF],
    "img-src": [SELF],
    "base-uri": [NONE],
    "form-action": [SELF],
    "frame-ancestors": [NONE],
}

BODY_LIMIT = 2 * 1024 * 1024
BODY_LIMIT_WEBHOOK = 256 * 1024
BODY_LIMIT_UPLOAD = 6 * 1024 * 1024  # a document of 5 MB, its form fields and boundaries
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_LIMIT
DATA_UPLOAD_MAX_NUMBER_FIELDS = 100
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

RATELIMIT_ENABLE = env.flag("RATELIMIT_ENABLE", default=True)
RATE_LIMIT_LOGIN = env.rate("RATE_LIMIT_LOGIN", default="10/m")
RATE_LIMIT_REGISTER = env.rate("RATE_LIMIT_REGISTER", default="10/m")
RATE_LIMIT_TRANSFER = env.rate("RATE_LIMIT_TRANSFER", default="60/m")
RATE_LIMIT_PAYMENT = env.rate("RATE_LIMIT_PAYMENT", default="30/m")
# These need no adjusting: people come nowhere near them.
PROFILE_RATE = "60/h"
DOCUMENT_RATE = "20/h"
SESSION_RATE = "120/m"
STATEMENT_PDF_RATE = "10/m"
WEBHOOK_ENDPOINT_RATE = "30/m"
METRICS_TOKEN = env.optional_secret("METRICS_TOKEN", min_length=16)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["users.authentication.SessionTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["fintech_core.parsers.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "fintech_core.negotiation.ContentNegotiation",
    "DEFAULT_FILTER_BACKENDS": ["fintech_core.filtering.FilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "fintech_core.pagination.CursorPagination",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "fintech_core.exceptions.problem_handler",
    "URL_FORMAT_OVERRIDE": None,  # `?format=` belongs to statements
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Fintech Core",
    "VERSION": "1.0.0",
    "DESCRIPTION": "A wallet backend: register, pass KYC, top up, send money, read what happened.",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SORT_OPERATIONS": True,  # else the order of methods changes from run to run
    "ENUM_NAME_OVERRIDES": {
        "BatchLegStatus": "transactions.models.TransferBatchLeg.Status",
        "BatchStatus": "transactions.models.TransferBatch.Status",
        "HoldStatus": "transactions.models.Hold.Status",
        "TypeEnum": "transactions.models.Transaction.Type",
        "TransactionStatus": "transactions.models.Transaction.Status",
        "PayoutStatus": "payments.models.Payout.Status",
        "DestinationType": "payments.serializers.DESTINATION_TYPES",
        "DepositRefundStatus": "payments.models.DepositRefund.Status",
        "PaymentIntentStatus": "payments.models.PaymentIntent.Status",
        "WebhookEventStatus": "payments.models.WebhookEvent.Status",
        "DeliveryOutcome": "fintech_core.models.DeliveryAttempt.Outcome",
        "WebhookDeliveryStatus": "fintech_core.models.WebhookDelivery.Status",
    },
}

# --- Money -------------------------------------------------------------------------------------
DEFAULT_CURRENCY = env.str("DEFAULT_CURRENCY", default="USD")
if DEFAULT_CURRENCY not in TWO_DECIMAL_CURRENCIES:
    raise ImproperlyConfigured("DEFAULT_CURRENCY must be an ISO 4217 code with two decimals.")
# By KYC tier, in major units of the wallet's currency. A limit that is missing here allows nothing:
# who is not approved sends nothing. Daily: within 24 hours. Monthly: within 30 days.
WALLET_LIMITS: dict[str, dict[str, Decimal | int]] = {
    "approved": {
        "transfer_max": Decimal("10000.00"),
        "daily_total": Decimal("50000.00"),
        "daily_count": 5_000,
        "monthly_total": Decimal("200000.00"),
        "monthly_count": 50_000,
        "balance_max": Decimal("100000.00"),
    },
    "unverified": {"balance_max": Decimal("1000.00")},
}

# --- Payments ----------------------------------------------------------------------------------
# The sandbox mints money: intents, webhook and simulation exist only where this is true.
PAYMENTS_SANDBOX = env.flag("PAYMENTS_SANDBOX", default=False)
# Two, comma-separated, while rotating; the first signs.
SANDBOX_WEBHOOK_SECRETS = env.webhook_secrets("SANDBOX_WEBHOOK_SECRET") if PAYMENTS_SANDBOX else []
# How a worker reaches our own web server, to deliver what the sandbox signed.
SANDBOX_DELIVERY_BASE_URL = env.base_url("SANDBOX_DELIVERY_BASE_URL", default=PUBLIC_BASE_URL)
# All of them verify, so that Stripe can be given a new one.
STRIPE_WEBHOOK_SECRETS = env.optional_secrets("STRIPE_WEBHOOK_SECRET", min_length=16)
STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE = env.optional_base_url("STRIPE_API_BASE")  # empty: Stripe's own
STRIPE_PAYOUT_ACCOUNT = env.str("STRIPE_PAYOUT_ACCOUNT", default="")
# Name → adapter. One whose own settings are missing is switched off.
PAYMENT_GATEWAYS = {
    "sandbox": "payments.gateways.sandbox.SandboxGateway",
    "stripe": "payments.gateways.stripe.StripeGateway",
}
PAYMENT_INTENT_LIFETIME = timedelta(hours=24)
# How many past days (UTC) are reconciled by themselves, if they have not been yet.
RECONCILIATION_DAYS = 3
WEBHOOK_MAX_ATTEMPTS = 8
# How long gateways deliver an event again and again (Stripe: up to three days); a system check sees
# to it that payloads are kept for longer.
WEBHOOK_RETRY_HORIZON = timedelta(days=7)
WEBHOOK_RETENTION = timedelta(days=90)

# --- Outgoing webhooks -------------------------------------------------------------------------
WEBHOOK_ALLOW_PRIVATE_TARGETS = env.flag("WEBHOOK_ALLOW_PRIVATE_TARGETS", default=False)
WEBHOOK_SECRET_OVERLAP = timedelta(hours=24)  # two signatures after a rotation
WEBHOOK_DISABLE_AFTER = timedelta(days=env.count("WEBHOOK_DISABLE_AFTER_DAYS", default=5))
WEBHOOK_DELIVERY_RETENTION = timedelta(days=30)

# --- Files, mail, language ---------------------------------------------------------------------
MEDIA_ROOT = env.str("MEDIA_ROOT", default=str(BASE_DIR / "media"))  # private: never served by URL
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"file_permissions_mode": 0o600, "directory_permissions_mode": 0o700},
    },
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
globals().update(env.email_url("EMAIL_URL", default="consolemail://"))
LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["fintech_core.formats"]

# --- Logging -----------------------------------------------------------------------------------
LOG_DIR = env.str("LOG_DIR", default=str(BASE_DIR / "logs"))  # empty: stdout only
LOGGING = logging_config(LOG_DIR)

UNFOLD = {
    "SITE_TITLE": "Fintech Core",
    "SITE_HEADER": "Fintech Core",
    "SITE_SUBHEADER": "Operations",
    "SITE_SYMBOL": "account_balance_wallet",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _request: static("fintech_core/favicon.svg"),
        }
    ],
    "STYLES": [lambda _request: static("fintech_core/admin.css")],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "fintech_core.dashboard.overview",
    "SIDEBAR": {"navigation": "fintech_core.dashboard.sidebar"},
}
