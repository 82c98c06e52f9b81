# The operator's image. BASE is any image with Python 3.13 and its venv module; nothing else of it is used.
#   docker build -t darkroom/operator .
ARG BASE=python:3.13-slim
ARG ONTO=dependencies

FROM ${BASE} AS dependencies
COPY operator/requirements.txt /opt/darkroom/requirements.txt
# A mirror or a proxy's certificates come in as secrets (pip.conf, ca.crt): they are there for this step alone.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/darkroom \
    && PIP_CONFIG_FILE=/run/secrets/pip.conf /opt/darkroom/bin/pip install --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r /opt/darkroom/requirements.txt \
    && /opt/darkroom/bin/pip uninstall --yes --quiet pip \
    && echo /opt/darkroom/app > "$(/opt/darkroom/bin/python -c 'import site; print(site.getsitepackages()[0])')/darkroom.pth"

FROM dependencies AS app
COPY LICENSE pyproject.toml scripts/image_app.py /src/
COPY operator/darkroom_api /src/darkroom_api
COPY operator/darkroom_operator /src/darkroom_operator
RUN /opt/darkroom/bin/python /src/image_app.py /layer darkroom_api darkroom_operator \
        --command darkroom-operator=darkroom_operator.main:main

FROM ${ONTO}
COPY --from=app /layer/ /opt/darkroom/
ENV PATH=/opt/darkroom/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
LABEL org.opencontainers.image.title="darkroom-operator" \
      org.opencontainers.image.description="Runs TrainingJobs of darkroom.dev on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8080 8443
ENTRYPOINT ["darkroom-operator"]
