"""What stands behind the proxies: the smallest, fastest thing that can give the answer."""
