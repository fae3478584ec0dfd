"""What only makes a policy faster or smaller in memory: kernels, buffers, CUDA graphs, a chunked head."""
