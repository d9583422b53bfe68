"""Something to look at without a cluster: the recordings that come with the package."""
