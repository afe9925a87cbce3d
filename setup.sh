#!/bin/sh
# First start with containers: .env with fresh secrets, build, start, migrate, superuser, status.
# Without a Docker engine it offers `make run`, which needs none. Safe to repeat.
set -eu
cd "$(dirname "$0")"

random_bytes() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
random_word() { head -c 400 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | cut -c "1-$1"; }

# Replaces the value of one variable in the new file. Values are base64 and contain no '|'.
put() { sed "s|^$1=.*|$1=$2|" .local/env.new >.local/env.next && mv .local/env.next .local/env.new; }

write_env() {
    mkdir -p -m 700 .local
    ( umask 077; cp .env.example .local/env.new; : >.local/env.next )
    chmod 600 .local/env.new
    put SECRET_KEY "$(random_word 64)"
    put JWT_SIGNING_KEY "$(random_word 48)"
    put FIELD_ENCRYPTION_KEYS "$(random_bytes 32 | tr '+/' '-_')"
    put LEDGER_SIGNING_KEY "$(random_bytes 32)"
    put SANDBOX_WEBHOOK_SECRET "whsec_$(random_bytes 32)"
    put POSTGRES_OWNER_PASSWORD "$(random_word 32)"
    put POSTGRES_APP_PASSWORD "$(random_word 32)"
    put REDIS_PASSWORD "$(random_word 32)"
    put DJANGO_SUPERUSER_PASSWORD "$(random_word 16)"
    # A laptop: without the sandbox gateway nobody could top up.
    put PAYMENTS_SANDBOX true
    chmod 600 .local/env.new
    mv .local/env.new .env
}

if [ -e .env ]; then
    echo "1. .env is there already; it was left as it is."
else
    write_env
    echo "1. .env written from .env.example, with fresh secrets and PAYMENTS_SANDBOX=true."
fi

if ! docker info >/dev/null 2>&1 || ! docker compose version >/dev/null 2>&1; then
    echo "2. No Docker engine with Compose answers here, so no containers were started."
    echo "   'make run' starts everything on this machine without Docker."
    if [ -t 0 ] && [ -t 1 ]; then
        printf "   Start it now? [Y/n] "
        read -r answer
        case "$answer" in
            "" | [Yy]*) exec make run ;;
        esac
    fi
    exit 0
fi

echo "2. Building the image ..."
docker compose build
echo "3. Starting PostgreSQL, Redis, the migrations, web, worker and beat ..."
docker compose up --detach --wait --wait-timeout 180

value_of() { sed -n "s/^$1=//p" .env | tail -n 1; }
DJANGO_SUPERUSER_EMAIL="${DJANGO_SUPERUSER_EMAIL:-$(value_of DJANGO_SUPERUSER_EMAIL)}"
DJANGO_SUPERUSER_PASSWORD="${DJANGO_SUPERUSER_PASSWORD:-$(value_of DJANGO_SUPERUSER_PASSWORD)}"
export DJANGO_SUPERUSER_EMAIL DJANGO_SUPERUSER_PASSWORD
if answer=$(docker compose exec -T -e DJANGO_SUPERUSER_PASSWORD web ./entrypoint.sh manage \
    createsuperuser --noinput --email "$DJANGO_SUPERUSER_EMAIL" 2>&1); then
    echo "4. Superuser $DJANGO_SUPERUSER_EMAIL created; the password is in .env."
elif echo "$answer" | grep -qi "already"; then
    echo "4. Superuser $DJANGO_SUPERUSER_EMAIL was there already."
else
    echo "$answer" >&2
    exit 1
fi

echo "5. Status:"
docker compose ps
port=$(value_of PORT)
echo
echo "API documentation: http://localhost:${port:-8000}/api/docs/   Admin: http://localhost:${port:-8000}/admin/"
echo "Demo people with money: make seed.   Stop: make down.   Logs: make logs."
