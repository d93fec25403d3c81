"""mqttjobs: a state change on MQTT becomes a durable job that any MQTT client can query."""

__version__ = "0.1.0"

__all__ = ["__version__"]
