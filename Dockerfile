# The program in a container; not built in continuous integration.
#
#   docker build --tag myosymmetry .
#   docker run --rm --network none --user "$(id -u)" -v /my/data:/data:ro -v /my/results:/out \
#     myosymmetry /data /out participant
FROM python:3.11-slim
WORKDIR /opt/myosymmetry
COPY requirements.lock pyproject.toml README.md LICENSE NOTICE ./
COPY pipeline pipeline
RUN python -m pip install --no-cache-dir --constraint requirements.lock .
# Matplotlib keeps a cache of fonts; any user may write it here.
ENV MPLCONFIGDIR=/tmp
ENTRYPOINT ["myosymmetry"]
