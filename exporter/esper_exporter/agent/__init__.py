"""Pages in shared memory, the node agent that serves them, and the wrapper that records how a run
died."""
