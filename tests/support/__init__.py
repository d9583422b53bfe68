"""What several test folders need: free ports, real servers, recordings."""
