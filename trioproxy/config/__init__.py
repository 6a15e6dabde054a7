"""The configuration: its schema, how it is read, and how it is shown."""
