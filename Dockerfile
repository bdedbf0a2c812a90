# The service as an image: `docker build .` for the CPU, `--build-arg ENGINE=gpu` for NVIDIA GPUs.

FROM python:3.11-slim-bookworm AS build
ARG ENGINE=cpu
WORKDIR /src
RUN python -m venv /opt/passerby
# What the service depends on changes less often than the service: a layer of its own.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir app model migrations passerby \
 && touch app/__init__.py model/__init__.py migrations/__init__.py passerby/__init__.py \
 && /opt/passerby/bin/pip install --no-cache-dir ".[${ENGINE}]" \
 && rm -r app model migrations passerby build *.egg-info  # a later build would keep the empty modules: they are newer
COPY app app
COPY model model
COPY migrations migrations
COPY passerby passerby
RUN /opt/passerby/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
 && cd / && /opt/passerby/bin/python -c "from passerby import Client, load_model"

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /data passerby
COPY --from=build /opt/passerby /opt/passerby
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/passerby-entrypoint
ENV PATH=/opt/passerby/bin:$PATH PYTHONUNBUFFERED=1 PASSERBY_HOST=0.0.0.0 PASSERBY_DATA_DIR=/data
USER passerby
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Alive, not ready: a service that embeds its gallery again works for hours. A start may rebuild the index of millions.
HEALTHCHECK --interval=10s --timeout=5s --start-period=6h \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PASSERBY_PORT\", 8000)}/health/live', timeout=4)"]
ENTRYPOINT ["passerby-entrypoint"]
CMD ["passerby", "serve"]
