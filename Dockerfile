# One image for CPU and GPU: docs/containers.md. tests/support/container.py runs its steps without an engine.

# The torch of requirements.txt is built for CUDA 13.0.3 and its wheels bring the libraries, cuDNN and
# NCCL included: `runtime` or `devel` would hold them twice. `base` asks the NVIDIA container toolkit
# for the devices and checks the driver's version. The tag is without a digest until somebody has
# pulled it.
FROM nvidia/cuda:13.0.3-base-ubuntu24.04

# The compiler and the headers are for torch.compile (`--compile`). No versions: Ubuntu's archive drops
# a package when it has a newer one, so that a pinned one soon could not be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        g++ \
        python3 \
        python3-dev \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/layerbench
ENV PATH="$VIRTUAL_ENV/bin:$PATH"
RUN python3 -m venv "$VIRTUAL_ENV"

# Before the sources: a change there must not install torch again.
WORKDIR /opt/source
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt

COPY LICENSE README.md pyproject.toml ./
COPY layerbench layerbench/
# Built by the setuptools of requirements.txt: an isolated build would fetch the newest.
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

WORKDIR /work
# Writable for every user: a mounted folder needs its owner's number (docker run --user).
RUN chmod 1777 . && mkdir --mode 1777 outputs
VOLUME ["/work/outputs"]

# A number that is not in /etc/passwd has no home; caches need one.
ENV HOME=/tmp
ENV PYTHONUNBUFFERED=1

# Ubuntu's own user `ubuntu`, and the first user of most hosts.
USER 1000:1000

# Seldom, since loading torch takes seconds of CPU time beside whatever is being timed.
HEALTHCHECK --interval=10m --timeout=2m \
    CMD ["python", "-c", "import layerbench, torch; assert torch.ones(2).sum() == 2"]

ENTRYPOINT ["layerbench"]
CMD ["--help"]
