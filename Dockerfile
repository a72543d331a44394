# What runs for every request becomes machine code here, so that the image needs no compiler.
FROM python:3.11-slim AS compiled
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /app
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY policies policies
COPY billing billing
COPY gateway gateway
RUN python -m gateway.compiling --strict

FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    POINTSMAN_HOST=0.0.0.0 POINTSMAN_PORT=8000 POINTSMAN_DATA_DIR=/data

RUN useradd --system --uid 10001 --create-home --shell /usr/sbin/nologin pointsman \
 && install -d -o pointsman -g pointsman -m 0700 /data

WORKDIR /app
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY manage.py pyproject.toml LICENSE ./
COPY policies policies
COPY billing billing
COPY templates templates
COPY gateway gateway
COPY --from=compiled /usr/local/pointsman-compiled /usr/local/pointsman-compiled
# A checkout under umask 077 would be unreadable for the user below.
RUN chmod -R a+rX /app && python -m compileall -q policies billing gateway

USER pointsman
VOLUME /data
EXPOSE 8000
# Longer than the drain time of the gateway: docker stop --time 130.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['POINTSMAN_PORT'] + '/readyz', timeout=2)"]
CMD ["python", "manage.py", "up"]
