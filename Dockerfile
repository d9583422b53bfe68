# esper-exporter with a CPU torch, as an unprivileged user.
#
#   docker build -t esper-exporter .                                              from a checkout
#   deploy/up                                                                     from the files of `esper-exporter assets`:
#                                                                                 it names the wheel that lies beside
#   deploy/image                                                                  without Docker, and tried out: buildah
#
# BASE: any Debian with Python 3.11 or newer and its venv. The digest is that of the tag on Docker Hub.
ARG BASE=docker.io/library/python:3.13.5-slim-bookworm@sha256:4c2cf9917bd1cbacc5e9b07320025bdb7cdf2df7b0ceaccb55e9dd7e30987419
FROM ${BASE} AS build

# Where the CPU build of torch comes from, and the list of versions and hashes: that one, or cuda.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=cpu
# Options of every pip: an index of yours, or --no-index --find-links=/wheels.
ARG PIP_OPTIONS=
# A wheel's path or address, in place of the tree or the wheel that lies beside this file.
ARG PACKAGE=

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY . /src
WORKDIR /src
RUN python3 -m venv /opt/esper \
    && /opt/esper/bin/pip install --require-hashes --no-deps --only-binary=:all: --extra-index-url "$TORCH_INDEX" $PIP_OPTIONS \
        -r deploy/requirements-image.txt -r "deploy/requirements-torch-$TORCH.txt"
# The package comes from this tree, or from a wheel that is named or lies here; never from an index.
RUN wheel=${PACKAGE%%\[*}; \
    if [ -z "$wheel" ]; then wheel=$(ls esper_exporter-*.whl 2>/dev/null | head -n 1); fi; \
    if [ -z "$wheel" ]; then \
        python3 -m venv /opt/build \
        && /opt/build/bin/pip install --require-hashes --no-deps --only-binary=:all: $PIP_OPTIONS -r deploy/requirements-build.txt \
        && /opt/build/bin/python -m hatchling build -t wheel -d /opt/wheel \
        && wheel=$(ls /opt/wheel/*.whl); \
    fi; \
    case $wheel in *://*) ;; *) set -- --no-index ;; esac; \
    /opt/esper/bin/pip install --no-deps "$@" "$wheel"

FROM ${BASE}
COPY --from=build /opt/esper /opt/esper
# Folders that volumes are mounted on: a new volume takes their owner over.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin esper \
    && install -d -o esper -g esper /targets /state

USER 10001:10001
ENV PATH=/opt/esper/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 \
    ESPER_EXPORTER_HOST=0.0.0.0 ESPER_EXPORTER_PORT=9108 ESPER_EXPORTER_STATE_DIR=/state
EXPOSE 9108
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9108/-/healthy', timeout=2)"]
ENTRYPOINT ["esper-exporter"]
CMD ["demo"]
