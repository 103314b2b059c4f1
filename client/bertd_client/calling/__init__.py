"""From inputs to calls that a server takes, and from its responses to outcomes in order."""
