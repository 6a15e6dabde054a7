"""What the command line's sub-commands do."""
