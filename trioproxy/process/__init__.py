"""The running worker: the supervisor, its forwarder, and what surrounds them in the operating system."""
