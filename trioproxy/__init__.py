"""trioproxy: an app proxy worker on trio, from users' browsers to the services of compute sessions."""

__version__ = "0.1.0"
