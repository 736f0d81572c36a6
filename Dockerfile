# docker build -t medseg .                              CPU
# docker build -t medseg:cuda --build-arg TORCH=cuda .  NVIDIA GPUs
FROM python:3.13-slim

ARG TORCH=cpu
# git: environment.json records the commit of a clone that is mounted.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*

# Before the sources, so that a change of them leaves this layer, by far the largest, as it is.
RUN if [ "$TORCH" = cpu ]; then \
        pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu; \
    else \
        pip install --no-cache-dir torch torchvision; \
    fi

WORKDIR /opt/medseg
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY medseg_pl medseg_pl
COPY configs configs
RUN pip install --no-cache-dir ".[export,tensorboard]"

# A home that anyone may write into: `--user` gives the container the ids of the host's user.
RUN useradd --create-home --uid 1000 medseg && mkdir /desk && chown medseg /desk && chmod 1777 /home/medseg
USER medseg
WORKDIR /desk
ENV HOME=/home/medseg MEDSEG_CACHE=/desk/.medseg_cache
ENTRYPOINT ["medseg"]
CMD ["--help"]
