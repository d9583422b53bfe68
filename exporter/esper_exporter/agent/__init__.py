"""Pages in shared memory, the node agent that serves them, and the wrapper that knows how a run
died."""
