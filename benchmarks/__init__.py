"""The same work done by eoslib and by what a reader would otherwise write, timed in one run on one core.

``python -m benchmarks`` measures, ``python -m benchmarks check`` compares ratios with the recorded ones. Peers are written here,
after what their users write; a peer whose package is not installed is listed as such.
"""
