"""Signs that the images cannot support advice."""
