"""The configuration file: read with positions, validated, and every error explained."""

from mqttjobs.config.load import load, summary

__all__ = ["load", "summary"]
