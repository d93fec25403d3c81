"""The agent process: runs operations on its own machine for a service, over MQTT only."""
