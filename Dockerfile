# The hosted server, small and without root. Built from the lock file, so that an image is what was tested.
#   docker build -t itwin-mcp .
FROM python:3.13-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
ENV UV_PROJECT_ENVIRONMENT=/opt/itwin-mcp UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY capabilities ./capabilities
COPY src ./src
RUN uv sync --locked --no-editable --no-dev --compile-bytecode --extra metrics --extra otel

FROM python:3.13-slim-bookworm
# The platform and the sign-in server are called over TLS, and trusted by the system's certificate authorities, which
# are taken as new as they are.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin itwin-mcp
COPY --from=build /opt/itwin-mcp /opt/itwin-mcp
ENV PATH=/opt/itwin-mcp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ITWIN_MCP_STATE_DIR=/tmp/itwin-mcp/state \
    ITWIN_MCP_CACHE_DIR=/tmp/itwin-mcp/cache
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=2 \
  CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["itwin-mcp"]
CMD ["serve", "--http", "0.0.0.0:8000"]
