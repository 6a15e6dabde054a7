"""What is measured: one module per kind of traffic, each with functions from a `Bench` to a `Result`."""
