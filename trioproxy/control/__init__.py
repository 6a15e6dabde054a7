"""What the supervisor and its forwarders say to each other."""
