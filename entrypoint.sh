#!/bin/sh
# What a container runs: entrypoint.sh web | worker | beat | migrate | manage ARGS | healthy ROLE
#
# Every role ends with `exec`, so that the program itself is process 1 of the container and gets
# the SIGTERM of `docker stop`.
set -eu

cd "$(dirname "$0")"
export DJANGO_SETTINGS_MODULE="${DJANGO_SETTINGS_MODULE:-fintech_core.settings}"
PYTHON="${PYTHON:-python}"
BEAT_SCHEDULE="${TMPDIR:-/tmp}/celerybeat-schedule"
export DATABASE_WAIT_SECONDS="${DATABASE_WAIT_SECONDS:-60}"
# gunicorn itself reads it, and takes an empty text for a wrong number.
[ -n "${WEB_CONCURRENCY:-}" ] || unset WEB_CONCURRENCY

say() { echo "entrypoint: $*" >&2; }

# Named before anything starts: Python would end with a traceback.
must_be_a_number() {
    case "$2" in
        "" | *[!0-9]*) say "$1 must be a whole number, and is '$2'."; exit 2 ;;
    esac
}
must_be_a_number DATABASE_WAIT_SECONDS "$DATABASE_WAIT_SECONDS"
must_be_a_number WEB_CONCURRENCY "${WEB_CONCURRENCY:-2}"
must_be_a_number WEB_THREADS "${WEB_THREADS:-4}"

# Until PostgreSQL answers, whatever it answers: a role may not exist before the first migration.
wait_for_postgres() {
    "$PYTHON" - <<'PYTHON_CODE'
import os, sys, time
from urllib.parse import urlsplit
import psycopg2

url = os.environ.get("DATABASE_OWNER_URL") or os.environ.get("DATABASE_URL") or ""
if not url:
    sys.exit("entrypoint: DATABASE_URL is not set; it says where PostgreSQL is.")
parts = urlsplit(url)
where = f"{parts.hostname}:{parts.port or 5432}"
limit = float(os.environ["DATABASE_WAIT_SECONDS"])
deadline = time.monotonic() + limit
said = False
while True:
    try:
        psycopg2.connect(url, connect_timeout=3).close()
        break
    except psycopg2.OperationalError as refusal:
        reason = str(refusal).strip().splitlines()[-1]
        if "FATAL:" in reason and "starting up" not in reason and "shutting down" not in reason:
            break
    if time.monotonic() > deadline:
        sys.exit(f"entrypoint: PostgreSQL at {where} did not answer within {limit:g} s: {reason}")
    if not said:
        print(f"entrypoint: waiting for PostgreSQL at {where} ...", file=sys.stderr, flush=True)
        said = True
    time.sleep(0.5)
PYTHON_CODE
}

# Whoever is given the owner's address migrates; the others wait until somebody has.
bring_database_up_to_date() {
    wait_for_postgres
    if [ -n "${DATABASE_OWNER_URL:-}" ]; then
        "$PYTHON" manage.py migrate --noinput
        return
    fi
    waited=0
    until "$PYTHON" manage.py migrate --check >/dev/null 2>&1; do
        if [ "$waited" -ge "$DATABASE_WAIT_SECONDS" ]; then
            say "the migrations were not applied within $DATABASE_WAIT_SECONDS s (role: migrate)."
            "$PYTHON" manage.py migrate --check >&2 || exit 1
        fi
        [ "$waited" -gt 0 ] || say "waiting for the migrations ..."
        waited=$((waited + 2))
        sleep 2
    done
}

# The image holds them already; a checkout, or a file system that may be written, gets them now.
collect_static_files() {
    if [ -d staticfiles ] && [ ! -w staticfiles ]; then
        return
    fi
    "$PYTHON" manage.py collectstatic --noinput --verbosity 0
}

# For HEALTHCHECK. A host name that the settings allow has to be named, or the answer is 400.
web_answers() {
    "$PYTHON" - <<'PYTHON_CODE'
import http.client, os, sys

host = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip().lstrip(".")
host = "localhost" if host in ("", "*") else host
server = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
try:
    server.request("GET", "/api/health/live/", headers={"Host": host})
    sys.exit(server.getresponse().status != 200)
except OSError as refusal:
    sys.exit(f"entrypoint: {refusal}")
PYTHON_CODE
}

# Beat writes its schedule down every three minutes; older than ten, it hangs.
beat_is_alive() {
    [ -n "$(find "$(dirname "$BEAT_SCHEDULE")" -name "$(basename "$BEAT_SCHEDULE")*" -mmin -10)" ]
}

role="${1:-web}"
[ "$#" -eq 0 ] || shift

case "$role" in
    web)
        bring_database_up_to_date
        collect_static_files
        exec "$PYTHON" -m gunicorn --config fintech_core/gunicorn_conf.py "$@" \
            fintech_core.wsgi:application
        ;;
    worker)
        bring_database_up_to_date
        exec "$PYTHON" -m celery -A fintech_core worker --loglevel INFO "$@"
        ;;
    beat)
        bring_database_up_to_date
        exec "$PYTHON" -m celery -A fintech_core.beat beat --loglevel INFO --pidfile= \
            --schedule "$BEAT_SCHEDULE" "$@"
        ;;
    migrate)
        wait_for_postgres
        exec "$PYTHON" manage.py migrate --noinput "$@"
        ;;
    manage)
        exec "$PYTHON" manage.py "$@"
        ;;
    healthy)
        case "${1:-web}" in
            web) web_answers ;;
            worker) exec "$PYTHON" -m celery -A fintech_core inspect ping \
                --destination "celery@$(hostname)" --timeout 5 ;;
            beat) beat_is_alive ;;
            *) say "no such role: $1"; exit 2 ;;
        esac
        ;;
    *)
        say "unknown role '$role'; one of: web worker beat migrate manage healthy"
        exit 2
        ;;
esac
