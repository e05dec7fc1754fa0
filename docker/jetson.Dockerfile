# The node on a Jetson Orin with JetPack 6 (Ubuntu 22.04, CUDA 12.6), with ROS 2 Humble from its
# packages, since there are no wheels of ROS 2 for Arm. From the checkout's root, on the Jetson:
#   docker build -f docker/jetson.Dockerfile -t slice_ros:jetson .
#   docker run --rm --runtime nvidia --net=host --ipc=host slice_ros:jetson
# Not built so far: written by the documentation of its parts.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates cmake curl g++ python3-venv \
 && curl -fsSL https://raw.githubusercontent.com/ros/rosdistro/master/ros.key \
    -o /usr/share/keyrings/ros-archive-keyring.gpg \
 && echo 'deb [signed-by=/usr/share/keyrings/ros-archive-keyring.gpg]' \
    'http://packages.ros.org/ros2/ubuntu jammy main' > /etc/apt/sources.list.d/ros2.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends python3-colcon-common-extensions \
    ros-humble-diagnostic-msgs ros-humble-geometry-msgs ros-humble-ros-base \
    ros-humble-sensor-msgs \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /ws
COPY . src/slice_ros
RUN source /opt/ros/humble/setup.bash && colcon build --packages-select slice_ros
# A container has no /etc/nv_tegra_release, so the Jetson's own index is named.
RUN source install/setup.bash && ros2 run slice_ros slice_setup \
    --torch-index https://pypi.jetson-ai-lab.io/jp6/cu126
CMD ["bash", "-c", "source install/setup.bash && ros2 launch slice_ros slice.launch.py"]
