# syntax=docker/dockerfile:1
# The worker, and every other command of full-pass. Pins: deploy/image/*.txt, made by `make constraints`.

FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/full-pass
WORKDIR /src
COPY deploy/image/build.txt deploy/image/runtime.txt ./
RUN python -m pip install --require-hashes --requirement build.txt \
    && python -m pip --python /opt/full-pass/bin/python install --only-binary :all: --require-hashes --requirement runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY sandbox sandbox
COPY consumer consumer
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/full-pass/bin/python install --no-deps /wheels/*.whl

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="full-pass-consumer" \
      org.opencontainers.image.description="Turns one quick-pass-completed event into a MEMORY document and five profile sections" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie"
RUN groupadd --gid 10001 full-pass \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin full-pass
COPY --from=build /opt/full-pass /opt/full-pass
ENV PATH=/opt/full-pass/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FULL_PASS_HTTP_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080
# Alive, not ready: a worker that waits for Kafka or for the model API is no reason to start it again.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('FULL_PASS_HTTP_PORT') or 8080}/health/live\", timeout=3)"]
ENTRYPOINT ["full-pass"]
CMD ["worker"]
