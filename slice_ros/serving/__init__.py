"""Where requests meet the engine: plan, run, deliver. No ROS.

`server.Server` is what the rest of the node talks to, `loop.Loop` the one thread that owns the
engine, `stats` what it has measured, `forecast` what it would promise.
"""

from slice_ros.serving.forecast import Forecast
from slice_ros.serving.loop import Delivery
from slice_ros.serving.server import DEFAULT_POLICY, Server, ServerConfig
from slice_ros.serving.stats import ClassSnapshot, Snapshot

__all__ = ['ClassSnapshot', 'DEFAULT_POLICY', 'Delivery', 'Forecast', 'Server', 'ServerConfig',
           'Snapshot']
