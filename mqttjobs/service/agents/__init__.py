"""Jobs on other machines: who the agents are, what each is given, and what they say of it."""
