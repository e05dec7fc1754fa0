"""Which requests take part in the next step. Pure Python: no torch, no ROS, no clock."""
