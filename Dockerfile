# The appliance's image. The base can be exchanged: any image with Python 3.11 or later and the system's certificates.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv /opt/ews-sync
COPY requirements.lock ./
RUN /opt/ews-sync/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY ews_sync ews_sync
# What the project needs is there already; hatchling builds it in an environment of its own.
RUN /opt/ews-sync/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
LABEL org.opencontainers.image.title="ews-sync" \
      org.opencontainers.image.description="Keeps the mail of many Exchange mailboxes flowing into files or buckets" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ews-sync /opt/ews-sync
# A container is reached from outside of it, so it listens on all of its addresses.
ENV PATH=/opt/ews-sync/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    REINFER_EWS_BIND=0.0.0.0:8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["reinfer-ews"]
