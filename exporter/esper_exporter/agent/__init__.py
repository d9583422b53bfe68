"""What runs beside trainers: the wrapper that starts them."""
