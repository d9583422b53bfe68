"""A run's events on disk: segments and Parquet, SQL over them, the report that explains a run."""
