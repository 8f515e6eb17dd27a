# The server in a container. `make dist` puts the wheel into dist/; then:
#
#   docker build -t hecaton-server .
#   docker run -d --name hecaton-server -p 8181:8181 -v hecaton:/data -e HECATON_ADMIN_PASS=mysecurepassword hecaton-server
#
# Options of `hecaton-server` stand behind the image's name. Where an index has Hecaton, no wheel is needed:
# `--build-arg HECATON='hecaton>=2'`.
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
ARG HECATON=/wheel/*.whl
# With LICENSE, since there must be something to copy where dist/ has no wheel.
COPY LICENSE dist/*.whl /wheel/
RUN python3 -m venv /opt/hecaton && /opt/hecaton/bin/pip install --no-cache-dir ${HECATON}

FROM ${PYTHON}
COPY --from=build /opt/hecaton /opt/hecaton
RUN useradd --system hecaton && install -d -o hecaton -m 700 /data
ENV PATH=/opt/hecaton/bin:${PATH} HECATON_HOME=/data PYTHONUNBUFFERED=1
USER hecaton
VOLUME /data
EXPOSE 8181
ENTRYPOINT ["hecaton-server"]
