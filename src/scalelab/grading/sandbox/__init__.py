"""Run untrusted code without a network, in namespaces and cgroups of Linux, or in a container."""
