# The appliance's image. The base can be exchanged for any with Python 3.11 or later, its venv module, and the system's
# certificates; a mirror of the same image, or one that is pinned by digest:
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag ews-sync:0.1.0 .
#
# What is in here runs without a shell, as any user, on a root file system that cannot be written.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
# pip stays behind in an environment of its own.
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/ews-sync
COPY requirements-build.lock ./
RUN tools/bin/pip install --no-cache-dir --no-compile --only-binary :all: --require-hashes \
    --requirement requirements-build.lock
COPY requirements.lock ./
RUN tools/bin/pip --python /opt/ews-sync/bin/python install --no-cache-dir --no-compile --only-binary :all: \
    --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY ews_sync ews_sync
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/ews-sync/bin/python install --no-cache-dir --no-compile --no-deps dist/*.whl \
    # Sources of extension modules, types for checkers, and tests are never imported.
    && find /opt/ews-sync -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.[ch]' \
        -o -name '*.hash' -o -name '*.pyi' \) -delete \
    && find /opt/ews-sync -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -r {} +
# Official images leave out the standard library's bytecode, and a file system that cannot be written cannot keep it:
# every start, and every health check, would compile what it imports. So what is imported is compiled now. It is not
# compared with the times of its sources, which a copy from stage to stage may round.
ENV PYTHONPYCACHEPREFIX=/opt/ews-sync/bytecode
RUN /opt/ews-sync/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ews-sync/lib \
    && /opt/ews-sync/bin/python -P -B -c 'import importlib, pkgutil, py_compile, sys, ews_sync; \
        [importlib.import_module(found.name) for found in pkgutil.walk_packages(ews_sync.__path__, "ews_sync.")]; \
        found = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}; \
        [py_compile.compile(path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH) \
            for path in sorted(found) if path.endswith(".py")]'

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="ews-sync" \
      org.opencontainers.image.description="Keeps the mail of many Exchange mailboxes flowing into files or buckets" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ews-sync /opt/ews-sync
# A container is reached from outside of it, so it listens on all of its addresses.
ENV PATH=/opt/ews-sync/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/ews-sync/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    REINFER_EWS_BIND=0.0.0.0:8000
USER 10001:10001
# Large messages pass through temporary files: on a volume they are on a disk, also with --read-only. A tmpfs would take
# them out of the container's memory.
VOLUME ["/tmp"]
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/ews-sync/bin/python", "-P", "-m", "ews_sync.probe"]
# The documented arguments begin with the command's name; it may be left out. A first process that has no handler yet does
# not hear SIGTERM, and Python needs a moment to begin: env holds the signal back until the command asks for it.
ENTRYPOINT ["/usr/bin/env", "--block-signal=TERM", "/opt/ews-sync/bin/reinfer-ews"]
