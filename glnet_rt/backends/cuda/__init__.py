"""The CUDA run time: kernels around the network, their memory, streams and graphs.

Importing it loads no CUDA library and needs none; what needs one says so when it is called.
"""
