# Images of our own, built by target:
#   services  gateway, ingest, reward, credit, registry, the policy agent and the topics job (no torch)
#   trainer   the trainer, and the transformers engine for machines without a GPU
#   vllm      the official vLLM server with our version gate as its middleware
# Every image runs as user 10001, writes only under /var/lib/leyden and /tmp, and needs no shell.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/leyden
COPY requirements/uv.txt requirements/build.txt /requirements/
RUN pip install --require-hashes -r /requirements/uv.txt -r /requirements/build.txt && uv venv /opt/leyden

# The wheel is built once and added last, so that a change of our code rebuilds no layer of packages.
FROM build AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY shared shared
COPY workbench workbench
COPY services services
RUN python -m hatchling build --target wheel --directory /wheel

FROM build AS build-services
COPY requirements/services.txt /requirements/
RUN uv pip sync --require-hashes /requirements/services.txt
RUN --mount=from=wheel,source=/wheel,target=/wheel uv pip install --no-deps /wheel/*.whl

FROM build AS build-trainer
COPY requirements/trainer.txt /requirements/
RUN uv pip sync --require-hashes /requirements/trainer.txt
RUN --mount=from=wheel,source=/wheel,target=/wheel uv pip install --no-deps /wheel/*.whl

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /tmp leyden \
    && install -d -o 10001 -g 10001 /var/lib/leyden /var/lib/leyden/claims /var/lib/leyden/checkpoints \
       /var/lib/leyden/models
ENV PATH=/opt/leyden/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LEYDEN_OPS_HOST=0.0.0.0 LEYDEN_OPS_PORT=9100 LEYDEN_DATA_DIR=/var/lib/leyden
USER 10001:10001
WORKDIR /var/lib/leyden
EXPOSE 9100
STOPSIGNAL SIGTERM
# `python -m` of the service: the command names the module.
ENTRYPOINT ["python", "-m"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['LEYDEN_OPS_PORT'] + '/healthz', timeout=4)"]

FROM runtime AS trainer
COPY --from=build-trainer /opt/leyden /opt/leyden
ENV HF_HOME=/var/lib/leyden/models
CMD ["leyden.trainer"]

FROM ${VLLM_IMAGE} AS vllm
USER root
RUN useradd --uid 10001 --no-create-home --home-dir /tmp leyden \
    && install -d -o 10001 -g 10001 /var/lib/leyden /var/lib/leyden/checkpoints /var/lib/leyden/models
# The gate needs only what vLLM itself brings (starlette, pydantic-settings), so nothing else is installed.
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps --no-cache-dir /wheel/*.whl
ENV HOME=/tmp USER=leyden HF_HOME=/var/lib/leyden/models VLLM_CACHE_ROOT=/tmp/vllm VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /var/lib/leyden
EXPOSE 8100
ENTRYPOINT ["python3", "-m"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=6 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8100/health', timeout=4)"]
CMD ["leyden.policy.engines"]

# Last, so that a plain `docker build .` makes the light image.
FROM runtime AS services
COPY --from=build-services /opt/leyden /opt/leyden
CMD ["leyden.gateway"]
