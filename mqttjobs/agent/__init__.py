"""The agent process: runs jobs on its own machine for a service, over MQTT only."""
