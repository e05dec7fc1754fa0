"""How deep the queues of the node and of its callers are."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# A token is not worth less because a listener was slow: keep plenty, and never block on it.
TOKENS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.VOLATILE)
# The default of 10 loses requests without a word when many callers ask at once.
SERVICES = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)
