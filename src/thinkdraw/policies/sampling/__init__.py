"""How a policy writes and draws, token by token: prefill, KV cache, decode steps, noise, and distributions."""
