"""What is kept of a run: segments and Parquet, SQL over them, and the report that explains it."""
