"""The node, and everything else that imports rclpy.

`node` holds the interfaces, `parameters` what can be set, `conversions` messages to core and
back, `calls` one request on its way through the node, `main` the process around it.
"""
