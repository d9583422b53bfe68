"""Events of both ages, read once at the border into frozen contract types."""
