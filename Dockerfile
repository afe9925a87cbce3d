# One image for web, worker, beat and migrate; the argument of entrypoint.sh chooses.

# --- Packages and static files ------------------------------------------------------------------
FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /app
COPY requirements.txt ./
RUN pip install --require-hashes -r requirements.txt

COPY . .
# Needs settings, but no server and no secret of ours: `offline` makes some up for this one command.
RUN python -m fintech_core.embedded offline python manage.py collectstatic --noinput

# --- What runs ------------------------------------------------------------------------------------
FROM python:3.11-slim AS final

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fintech Core" \
      org.opencontainers.image.description="A wallet backend: double entry, proven by PostgreSQL" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"

RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/*

# The number is fixed, so that volumes keep their owner from one image to the next. The code
# belongs to root: the service cannot change itself.
RUN groupadd --gid 10001 fintech \
    && useradd --uid 10001 --gid fintech --home-dir /app --no-create-home --shell /usr/sbin/nologin fintech \
    && install -d -o fintech -g fintech -m 0700 /data /data/media

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PORT=8000 \
    MEDIA_ROOT=/data/media \
    LOG_DIR=

WORKDIR /app
USER 10001:10001
EXPOSE 8000
VOLUME /data/media
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=3 \
    CMD ["/app/entrypoint.sh", "healthy", "web"]
ENTRYPOINT ["/app/entrypoint.sh"]
CMD ["web"]
