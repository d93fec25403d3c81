"""May it run: conditions, throttles, loops and breakers, each with its reason."""
