# syntax=docker/dockerfile:1
# One image for every process: `docker run … api`, `… worker`, `… serve`. Built in one stage, run without the tools.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/aigateway
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/aigateway/bin/pip install --disable-pip-version-check --require-hashes -r requirements.lock
COPY . .
RUN /opt/aigateway/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation --no-compile .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/aigateway aigateway
COPY --from=build /opt/aigateway /opt/aigateway
ENV PATH=/opt/aigateway/bin:$PATH PYTHONUNBUFFERED=1
USER aigateway
# SQLite's file, an aigateway.yaml and a folder of workflows are looked for here.
WORKDIR /var/lib/aigateway
VOLUME /var/lib/aigateway
EXPOSE 8080
# Inside a container loopback reaches nobody; outside of it, keys are required unless AIGATEWAY_SERVER__AUTH says otherwise.
ENV AIGATEWAY_SERVER__HOST=0.0.0.0 AIGATEWAY_SERVER__PORT=8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["aigateway"]
CMD ["serve"]
