"""The benchmark: trioproxy beside other proxies, on one machine, in one run. Started by `scripts/bench/run`."""
