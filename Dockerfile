# esper-exporter with a CPU torch, as an unprivileged user.
#
#   docker build -t esper-exporter .                                              from a checkout
#   deploy/up                                                                     from the files of `esper-exporter assets`:
#                                                                                 it names the wheel that lies beside
FROM python:3.13.5-slim-bookworm

# Where torch comes from; the GPU profile of docker-compose.yml names the CUDA builds.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch==2.13.0
ARG PACKAGE=/src[demo,web]

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# numpy comes with torch's index as well; everything else does not.
RUN pip install --index-url "$TORCH_INDEX" "$TORCH"

COPY . /src
RUN pip install --constraint /src/constraints.txt "$PACKAGE" && rm -rf /src

# Folders that volumes are mounted on: a new volume takes their owner over.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin esper \
    && install -d -o esper -g esper /targets /state

USER 10001:10001
ENV ESPER_EXPORTER_HOST=0.0.0.0 ESPER_EXPORTER_PORT=9108 ESPER_EXPORTER_STATE_DIR=/state
EXPOSE 9108
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9108/-/healthy', timeout=2)"]
ENTRYPOINT ["esper-exporter"]
CMD ["demo"]
